from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ConfigApp(AppConfig):
    name = "cloud.config"
    label = "config"
    verbose_name = _("Settings")

    def ready(self) -> None:
        from cloud.config import permissions  # noqa: F401

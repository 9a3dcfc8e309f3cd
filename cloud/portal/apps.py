from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PortalApp(AppConfig):
    name = "cloud.portal"
    label = "portal"
    verbose_name = _("Portal")

    def ready(self) -> None:
        from cloud.portal import config  # noqa: F401

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class MonitoringApp(AppConfig):
    name = "monitoring"
    label = "monitoring"
    verbose_name = _("Monitoring")

    def ready(self) -> None:
        from monitoring import permissions  # noqa: F401

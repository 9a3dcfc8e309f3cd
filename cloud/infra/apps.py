from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class InfraApp(AppConfig):
    name = "cloud.infra"
    label = "infra"
    verbose_name = _("Infrastructure")

    def ready(self) -> None:
        from cloud.infra import config, permissions, receivers  # noqa: F401
        from cloud.infra.workflows import delete_host, enrol_host  # noqa: F401

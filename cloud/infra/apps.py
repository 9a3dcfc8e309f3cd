from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class InfraApp(AppConfig):
    name = "cloud.infra"
    label = "infra"
    verbose_name = _("Infrastructure")

    def ready(self) -> None:
        from cloud.infra import config, doctor, permissions, receivers  # noqa: F401
        from cloud.infra.services import capacity  # noqa: F401
        from cloud.infra.workflows import delete_host, enrol_host, revoke_agent, upgrade_agent  # noqa: F401
        from cloud.infra.workflows import doctor as _doctor  # noqa: F401

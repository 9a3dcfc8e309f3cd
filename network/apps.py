from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class NetworkApp(AppConfig):
    name = "network"
    label = "network"
    verbose_name = _("Network")

    def ready(self) -> None:
        from network import config, doctor, doctor_addresses, permissions, quotas, receivers  # noqa: F401
        from network.services import desired  # noqa: F401

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AccountsApp(AppConfig):
    name = "cloud.accounts"
    label = "accounts"
    verbose_name = _("Accounts")

    def ready(self) -> None:
        from cloud.accounts import doctor, permissions, receivers  # noqa: F401
        from cloud.accounts.api import schemes  # noqa: F401

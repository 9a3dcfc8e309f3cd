from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EventsApp(AppConfig):
    name = "cloud.events"
    label = "events"
    verbose_name = _("Events")

    def ready(self) -> None:
        from cloud.common import audit as port
        from cloud.common.api import idempotency
        from cloud.events import config, permissions  # noqa: F401
        from cloud.events.services import answers, audit

        port.fill(audit.record)
        idempotency.fill(answers.once)

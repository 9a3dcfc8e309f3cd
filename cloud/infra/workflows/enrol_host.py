"""Adding a host, and reconnecting one: enrolment of its machine."""

from django.utils.translation import gettext_lazy as _

from cloud.infra.models import Host, HostState
from cloud.infra.workflows import steps
from cloud.jobs.workflow import Context, Workflow


class AddHost(Workflow):
    name = "host.add"
    verb = _("Add host")
    activity = "adding"
    steps = steps.ENROL

    def succeeded(self, ctx: Context) -> None:
        steps.finished(ctx)
        Host.objects.filter(agent=ctx["agent"]).update(state=HostState.READY)

    def failed(self, ctx: Context) -> None:
        """A host that was never enrolled is no host: the job keeps the reason, nothing else stays."""
        steps.finished(ctx)
        Host.objects.filter(agent=ctx["agent"]).delete()
        steps.vanish(ctx)


class ReconnectHost(Workflow):
    name = "host.reconnect"
    verb = _("Reconnect host")
    activity = "reconnecting"
    steps = steps.ENROL

    def succeeded(self, ctx: Context) -> None:
        steps.finished(ctx)

    def failed(self, ctx: Context) -> None:
        steps.finished(ctx)
        steps.restore(ctx)

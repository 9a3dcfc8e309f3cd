"""Things of a machine go into its quarantine, come back from it, or leave it for good. One such job a machine."""

from typing import Any, ClassVar
from uuid import UUID

from django.utils.translation import gettext_lazy as _

from cloud.common.doctor import CHECKS, Finding
from cloud.common.errors import Problem
from cloud.common.wire import Document, Message
from cloud.infra import quarantined
from cloud.infra.messages import Handled, Purge, PutBack, SetAside, Thing
from cloud.infra.models import QuarantinedThing
from cloud.jobs.workflow import AgentStep, Context, Step, Workflow, minutes


class _OnMachine(AgentStep):
    deadline = minutes(10)

    def agent(self, ctx: Context) -> UUID | str | None:
        agent: str = ctx["agent"]
        return agent

    @staticmethod
    def expect_some(ctx: Context, handled: Handled) -> None:
        """Note what was refused; when nothing was done at all, the first reason is the job's."""
        ctx["refused"] = {id: failure.to_document() for id, failure in handled.refused.items()}
        if handled.refused and not handled.done:
            first = next(iter(handled.refused.values()))
            raise Problem(first.detail, code=first.code, nature=first.nature)


class SetThingsAside(_OnMachine):
    """Each thing is looked at again before the machine is asked; what is in its right by now is left alone."""

    label = _("Taking things into quarantine")

    def ask(self, ctx: Context) -> Message | None:
        things = [
            Thing(item["id"], CHECKS[finding.kind].keeper, finding.thing)
            for item in ctx["items"]
            if CHECKS[(finding := _finding(item)).kind].still(finding)
        ]
        return SetAside(things) if things else None

    def answered(self, ctx: Context, body: Document) -> None:
        handled = Handled.from_document(body)
        # What is not there needs nothing done on the machine; rows that speak of it are settled all the same.
        absent = [id for id, failure in handled.refused.items() if failure.nature == "not_found"]
        for item in ctx["items"]:
            finding, id = _finding(item), item["id"]
            check = CHECKS[finding.kind]
            if id not in handled.done and id not in absent:
                continue
            rows = check.settle(finding)
            if check.is_kept and (rows or id in handled.done):
                quarantined.keep(id, finding, rows, keeper=check.keeper if id in handled.done else "")
        refused = {id: failure for id, failure in handled.refused.items() if id not in absent}
        self.expect_some(ctx, Handled([*handled.done, *absent], refused))

    def undo_ask(self, ctx: Context) -> Message | None:
        findings = [(item["id"], _finding(item)) for item in ctx["items"]]
        return PutBack([Thing(id, CHECKS[finding.kind].keeper, finding.thing) for id, finding in findings])


class PutThingsBack(_OnMachine):
    label = _("Putting things back from quarantine")

    def ask(self, ctx: Context) -> Message | None:
        return PutBack(_kept(ctx))

    def answered(self, ctx: Context, body: Document) -> None:
        handled = Handled.from_document(body)
        for kept in QuarantinedThing.objects.filter(pk__in=handled.done):
            quarantined.put_rows_back(kept)
        self.expect_some(ctx, handled)

    def undo_ask(self, ctx: Context) -> Message | None:
        return SetAside(_kept(ctx))


class PurgeThings(_OnMachine):
    label = _("Removing things from quarantine")
    is_cancellable = False

    def ask(self, ctx: Context) -> Message | None:
        return Purge(_kept(ctx))

    def answered(self, ctx: Context, body: Document) -> None:
        handled = Handled.from_document(body)
        for kept in QuarantinedThing.objects.filter(pk__in=handled.done):
            quarantined.forget(kept)
        self.expect_some(ctx, handled)


class FixOnMachine(Workflow):
    name = "doctor.fix"
    verb = _("Mend what the doctor found")
    steps: ClassVar[list[type[Step]]] = [SetThingsAside]


class RestoreOnMachine(Workflow):
    name = "doctor.restore"
    verb = _("Put back from quarantine")
    steps: ClassVar[list[type[Step]]] = [PutThingsBack]


class PurgeOnMachine(Workflow):
    name = "doctor.purge"
    verb = _("Purge the quarantine")
    steps: ClassVar[list[type[Step]]] = [PurgeThings]


def _finding(item: dict[str, Any]) -> Finding:
    return Finding(**item["finding"])


def _kept(ctx: Context) -> list[Thing]:
    rows = QuarantinedThing.objects.filter(pk__in=ctx["things"]).order_by("keeper", "pk")
    return [Thing(str(row.pk), row.keeper, row.thing) for row in rows]

"""The steps that enrol a machine, for any workflow whose context has `agent` (its uuid) and `credentials` (an id).

`ENROL` is the list to put into a workflow; further context: `is_new` (False when the machine is enrolled anew, so that
a failure brings back what was there), `hypervisor` for agent.json. `finished(ctx)` belongs into the workflow's
`succeeded` and `failed`; `vanish(ctx)` besides into `failed` when the agent was made for this job.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.common.driver import DriverError, Rejected
from cloud.common.errors import Problem
from cloud.common.wire import Document
from cloud.infra import enrolment, secrets
from cloud.infra.drivers.ssh import Credentials, HostKey, Remote
from cloud.infra.models import Agent
from cloud.infra.workflows import problems
from cloud.jobs.workflow import Context, Step, WaitStep, minutes

log = logging.getLogger(__name__)

HELLO_DEADLINE_S = 90


def machine(ctx: Context) -> Agent:
    return Agent.objects.get(pk=ctx["agent"])


def is_new(ctx: Context) -> bool:
    return bool(ctx.get("is_new", True))


SSH_DEADLINE_S = minutes(5)


@contextmanager
def session(ctx: Context) -> Iterator[Remote]:
    """A signed-in session with the machine of the job, cut at the deadline of an SSH step; the job's secret is kept on.

    Raises Problem, `secret_expired` before anything is done, and turns the block's driver errors into it.
    """
    agent = machine(ctx)
    pinned = HostKey(agent.host_key_type, agent.host_key_fingerprint) if agent.host_key_fingerprint else None
    held = secrets.find(ctx["credentials"])
    credentials = Credentials(agent.ssh_user, held.get("password", ""), held.get("private_key", ""))
    may_loop = bool(settings.MICA["allow_loopback_hosts"])
    with (
        problems.told(),
        Remote.connect(
            agent.address, agent.ssh_port, credentials, pinned=pinned, may_loop=may_loop, within_s=SSH_DEADLINE_S
        ) as remote,
    ):
        yield remote


class EnrolStep(Step):
    """A step that speaks SSH: runs outside transactions, on a queue of its own, and is idempotent by itself."""

    queue = "control.ssh"
    is_slow = True
    deadline = SSH_DEADLINE_S

    def run(self, ctx: Context) -> None:
        with session(ctx) as remote:
            self.on_machine(remote, ctx)

    def undo(self, ctx: Context) -> None:
        """Take it back on the machine; one that cannot be reached any more keeps files that open no door."""
        if not Agent.objects.filter(pk=ctx["agent"]).exists():
            return
        self.undo_here(ctx)
        if type(self).undo_on_machine is EnrolStep.undo_on_machine:
            return
        try:
            with session(ctx) as remote:
                self.undo_on_machine(remote, ctx)
        except (Problem, DriverError) as error:
            log.warning("agent %s: %s was not undone on the machine: %s", ctx["agent"], type(self).__name__, error)

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        raise NotImplementedError

    def undo_on_machine(self, remote: Remote, ctx: Context) -> None:
        """Take it back on the machine; absent is fine."""

    def undo_here(self, ctx: Context) -> None:
        """Take back what it did in the platform's own stores; absent is fine."""


class ReachMachine(EnrolStep):
    """Signs in and pins the host key: from now on only the machine that shows it is spoken to."""

    label = _("Connecting over SSH")

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        if remote.run(["/usr/bin/python3", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).status:
            found = remote.run(["/usr/bin/python3", "--version"])
            raise Rejected("python_missing", found.last_words if found.status else f"Found {found.stdout.strip()}.")
        other = enrolment.enrolled_as(remote)
        if other != ctx["agent"] and (known := _known(other)) is not None:
            raise Rejected("already_enrolled", f"It is known as {known.name}, {known.address}.")
        key = remote.host_key
        Agent.objects.filter(pk=ctx["agent"]).update(host_key_type=key.type, host_key_fingerprint=key.fingerprint)


class KeepPresent(EnrolStep):
    """Only where a machine is enrolled anew: what is there can be brought back.

    When it is back, the new password is shut out, and not before: a machine that could not be put back keeps both.
    """

    label = _("Keeping the present agent aside")

    def applies(self, ctx: Context) -> bool:
        return not is_new(ctx)

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        enrolment.keep_present(remote, machine(ctx))

    def undo_on_machine(self, remote: Remote, ctx: Context) -> None:
        enrolment.bring_back(remote)
        if enrolment.enrolled_as(remote):
            enrolment.start_unit(remote)
        enrolment.settle_as_found(remote, machine(ctx))


class UploadAgent(EnrolStep):
    label = _("Copying the agent to the machine")
    weight: ClassVar[float] = 3

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        remote.write(enrolment.BUNDLE, enrolment.bundle(), mode="0755")

    def undo_on_machine(self, remote: Remote, ctx: Context) -> None:
        if is_new(ctx):
            remote.remove(enrolment.BUNDLE)


class CheckMachine(EnrolStep):
    """The agent's own look at the machine: what it needs and does not find fails the job before anything runs."""

    label = _("Checking the machine")

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        kind, hypervisor = machine(ctx).kind, ctx.get("hypervisor", "libvirt")
        answer = remote.run([*enrolment.PYTHON, "preflight", "--kind", kind, "--hypervisor", hypervisor])
        try:
            found: Any = json.loads(answer.stdout)
        except ValueError:
            raise Rejected("command_failed", f"The agent does not start: {answer.last_words}") from None
        expect_nothing_missing(found.get("missing", []))


class SignCertificate(EnrolStep):
    label = _("Signing the machine's certificate")

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        enrolment.sign(remote, machine(ctx))

    def undo_on_machine(self, remote: Remote, ctx: Context) -> None:
        if is_new(ctx):
            remote.remove(enrolment.CONFIG)


class GiveAccess(EnrolStep):
    """A Redis user and a metrics token of the machine's own, and agent.json that holds them.

    Enrolled anew, the old password stays good until the new agent has spoken, and the new one until the old agent is
    back (`KeepPresent`).
    """

    label = _("Giving the machine its access")

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        agent = machine(ctx)
        password, hashed = enrolment.new_password()
        enrolment.give_token(agent)
        enrolment.give_spare(agent, hashed)
        enrolment.write_config(remote, agent, password=password, hypervisor=ctx.get("hypervisor", "libvirt"))
        ctx["redis_password_hash"] = hashed

    def undo_here(self, ctx: Context) -> None:
        if is_new(ctx):
            enrolment.revoke(machine(ctx))

    def undo_on_machine(self, remote: Remote, ctx: Context) -> None:
        if is_new(ctx):
            remote.remove(f"{enrolment.CONFIG}/agent.json")


class StartAgent(EnrolStep):
    label = _("Starting the agent")

    def on_machine(self, remote: Remote, ctx: Context) -> None:
        Agent.objects.filter(pk=ctx["agent"]).update(enrolled_at=Now())
        enrolment.start_unit(remote)

    def undo_on_machine(self, remote: Remote, ctx: Context) -> None:
        if is_new(ctx):
            enrolment.stop_unit(remote)


class WaitForHello(WaitStep):
    label = _("Waiting for the agent to report")
    deadline = HELLO_DEADLINE_S

    def topics(self, ctx: Context) -> list[str]:
        return [f"hello:{ctx['agent']}"]

    def is_met(self, ctx: Context) -> bool:
        return Agent.objects.filter(pk=ctx["agent"], hello_at__gte=F("enrolled_at")).exists()


class Settle(EnrolStep):
    """The new password is the only one; what was put aside goes."""

    label = _("Settling the machine's access")
    is_cancellable = False

    def run(self, ctx: Context) -> None:
        enrolment.settle_password(machine(ctx), ctx["redis_password_hash"])
        if is_new(ctx):
            return
        try:
            with session(ctx) as remote:
                remote.remove(enrolment.BEFORE)
        except Problem as error:
            # The agent runs with its new access: a copy of the old, which opens nothing, fails nobody's job.
            log.warning("agent %s: %s stays on the machine: %s", ctx["agent"], enrolment.BEFORE, error)


ENROL: list[type[Step]] = [
    ReachMachine,
    KeepPresent,
    UploadAgent,
    CheckMachine,
    SignCertificate,
    GiveAccess,
    StartAgent,
    WaitForHello,
    Settle,
]


def finished(ctx: Context) -> None:
    """The job ends: its secret is forgotten, on commit."""
    transaction.on_commit(lambda: secrets.forget(ctx["credentials"]), robust=True)


def vanish(ctx: Context) -> None:
    """The agent that was made for this job goes with it; absent is fine."""
    Agent.objects.filter(pk=ctx["agent"]).delete()


def restore(ctx: Context) -> None:
    """An enrolment anew that failed: the agent's row is again what it was; `before` in the context holds it."""
    Agent.objects.filter(pk=ctx["agent"]).update(**ctx.get("before", {}))


def expect_nothing_missing(missing: list[Document]) -> None:
    """Raise Rejected for what `agent.pyz preflight` misses: [{code, detail, advice, packages}]."""
    if not missing:
        return
    words = " ".join(f"{lack['detail']} {lack['advice']}" for lack in missing)
    packages = any(lack.get("packages") for lack in missing)
    raise Rejected("packages_missing" if packages else str(missing[0]["code"]), words)


def _known(uuid: str) -> Agent | None:
    try:
        return Agent.objects.filter(pk=UUID(uuid)).first()
    except ValueError:
        return None

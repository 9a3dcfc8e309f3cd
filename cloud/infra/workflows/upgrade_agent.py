"""Agents become the release that this control brings: one machine, or all of them a few at a time.

The machine tries the new release and goes back by itself unless control confirms it (`cloud.agent.upgrade`): so none of
the steps has anything to take back, and no process of a virtual machine is touched.
"""

import asyncio
import json
from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor, platform
from cloud.common.errors import Conflict, Problem, Unavailable
from cloud.common.models import Connection
from cloud.common.text import filled
from cloud.common.wire import Message
from cloud.config.services import value
from cloud.infra import releases, streams
from cloud.infra.messages import UPGRADE_VERB, ConfirmRelease
from cloud.infra.models import Agent
from cloud.jobs import engine
from cloud.jobs import services as jobs
from cloud.jobs.models import Job, JobState
from cloud.jobs.workflow import AgentStep, Context, Step, WaitStep, Workflow, minutes, seconds

SEND_WITHIN_S = 120
CHUNK_BYTES = 1 << 18


class SendRelease(Step):
    """The file goes through the machine's stream door; the machine checks its sum and tries whether it starts."""

    label = _("Sending the release to the machine")
    deadline = minutes(3)
    queue = "control.ssh"
    is_slow = True
    weight: ClassVar[float] = 2

    def run(self, ctx: Context) -> None:
        release = releases.current()
        agent = Agent.objects.get(pk=ctx["agent"])
        said = asyncio.run(_send(agent, release))
        if said.get("state") not in ("present", "installed"):
            raise Problem(
                str(said.get("detail", "")),
                code=str(said.get("code", "release_refused")),
                advice=_("The machine goes on with the release it has. See its log."),
            )
        ctx["version"] = release.version


async def _send(agent: Agent, release: releases.Release) -> dict[str, Any]:
    params = {"version": release.version, "sha256": release.sha256, "size_bytes": len(release.content)}
    reader, writer = await streams.open(agent, UPGRADE_VERB, agent.pk, params)
    try:
        async with asyncio.timeout(SEND_WITHIN_S):
            said: dict[str, Any] = json.loads(await reader.readline())
            if said.get("state") != "wanted":
                return said
            for start in range(0, len(release.content), CHUNK_BYTES):
                writer.write(release.content[start : start + CHUNK_BYTES])
                await writer.drain()
            return dict(json.loads(await reader.readline()))
    except (OSError, TimeoutError, ValueError) as error:
        raise Unavailable(
            filled(_("The machine broke off while it took the release. (%(error)s)"), error=repr(error)),
            code="stream_broken",
            advice=_("Try again; if it happens again, look at its agent's log."),
        ) from error
    finally:
        writer.close()


class AwaitRelease(WaitStep):
    """The machine's agent begins anew, and speaks as the new release."""

    label = _("Waiting for the agent to come back")
    deadline = seconds(100)  # less than the machine's patience for a confirmation
    is_cancellable = False

    def topics(self, ctx: Context) -> list[str]:
        return [f"hello:{ctx['agent']}"]

    def is_met(self, ctx: Context) -> bool:
        agent = Agent.objects.filter(pk=ctx["agent"]).first()
        if agent is None:
            raise Problem(_("The machine is gone."), code="agent_gone")
        if agent.version == ctx["version"]:
            return True
        failure = agent.facts.get("release_failure") or {}
        if isinstance(failure, dict) and failure.get("version") == ctx["version"]:
            reason = str(failure.get("reason", ""))
            raise Problem(
                filled(_("The machine went back to its previous release. %(reason)s"), reason=reason),
                code="release_went_back",
                advice=_("See the agent's log on the machine."),
            )
        return False


class Confirm(AgentStep):
    """Control can ask the new release and hears its answer: it stays."""

    label = _("Confirming the release")
    deadline = seconds(30)
    is_cancellable = False

    def agent(self, ctx: Context) -> UUID | str | None:
        agent: str = ctx["agent"]
        return agent

    def ask(self, ctx: Context) -> Message | None:
        return ConfirmRelease(ctx["version"])


class UpgradeAgent(Workflow):
    name = "agent.upgrade"
    verb = _("Upgrade agent")
    steps: ClassVar[list[type[Step]]] = [SendRelease, AwaitRelease, Confirm]

    def succeeded(self, ctx: Context) -> None:
        _tell_parent(ctx)

    def failed(self, ctx: Context) -> None:
        _tell_parent(ctx)


def _tell_parent(ctx: Context) -> None:
    parent = ctx.job.parent_id
    if parent:
        transaction.on_commit(lambda: engine.wake(_topic(parent)), robust=True)


def _topic(job: UUID) -> str:
    return f"upgrade:{job}"


def against(agent: Agent) -> Conflict | None:
    """Why the agent cannot be upgraded now; None when it can."""
    if agent.connection != Connection.CONNECTED:
        return Conflict(
            filled(_("%(name)s is not connected."), name=agent.name),
            code="not_connected",
            advice=_("It can be upgraded when it is back."),
        )
    if not releases.is_outdated(agent.version):
        return Conflict(filled(_("%(name)s has the current release."), name=agent.name), code="already_current")
    return None


def begin(agent: Agent, *, actor: Actor, resource: Any = None, parent: Job | None = None) -> Job:
    """Open the job that upgrades an agent, in the caller's transaction; `resource` is what stands on it, as its host.

    Raises Conflict when the machine is away, has the release already, or is held by another job.
    """
    if problem := against(agent):
        raise problem
    context = {"agent": str(agent.pk), "version": releases.version()}
    return jobs.open(UpgradeAgent, resource=resource or agent, actor=actor, context=context, parent=parent)


class UpgradeEach(WaitStep):
    """Opens the next machine's job when one has ended well, and stops at the first that did not."""

    label = _("Upgrading one machine after another")
    deadline = minutes(24 * 60)

    def topics(self, ctx: Context) -> list[str]:
        return [_topic(ctx.job.pk)]

    def is_met(self, ctx: Context) -> bool:
        children = list(Job.objects.filter(parent=ctx.job))
        at_work = [child for child in children if child.finished_at is None]
        failed = [child for child in children if child.finished_at and child.state != JobState.SUCCEEDED]
        if failed:
            if at_work:
                return False  # what was begun is brought to its end
            names = ", ".join(child.resource_name for child in failed)
            told = _("%(names)s did not come back with the new release; no other machine was touched.")
            raise Problem(
                filled(told, names=names),
                code="upgrade_stopped",
                advice=_("See why in that machine's job, mend it, then upgrade all again."),
            )
        known = {child.context["agent"] for child in children}
        waiting = [
            agent
            for agent in Agent.objects.connected().filter(pk__in=ctx["agents"]).exclude(pk__in=known).order_by("name")
            if releases.is_outdated(agent.version)
        ]
        for agent in waiting[: max(0, value("agent.upgrades_at_once") - len(at_work))]:
            self._begin(agent, ctx)
        return not waiting and not at_work

    def _begin(self, agent: Agent, ctx: Context) -> None:
        try:
            with transaction.atomic():
                begin(agent, actor=platform(ctx.job.actor_name), parent=ctx.job)
        except Conflict:
            return  # another job is at work on it: the next look tries again


class UpgradeAgents(Workflow):
    name = "agent.upgrade_all"
    verb = _("Upgrade all agents")
    steps: ClassVar[list[type[Step]]] = [UpgradeEach]

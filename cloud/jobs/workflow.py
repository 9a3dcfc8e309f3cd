"""How a long act is written down: a workflow is an ordered list of small steps, each with `run` and `undo`.

Both are idempotent: run twice is run once, and what is absent is fine for undo. Ids are chosen before the job starts,
so that undo needs no output of run. The engine is `cloud.jobs.engine`.
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, ClassVar
from uuid import UUID

from django.apps import apps
from django.db import models
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.text import filled
from cloud.common.wire import Document, Message
from cloud.jobs.models import Job


def seconds(number: float) -> float:
    return number


def minutes(number: float) -> float:
    return number * 60


class Context(MutableMapping[str, Any]):
    """What a step sees: the job, its main resource, and plain JSON values shared by the steps and kept with the job.

    `ctx["host"]` reads a value that the service put there when it opened the job, or that an earlier step left.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    def __getitem__(self, name: str) -> Any:
        return self.job.context[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.job.context[name] = value

    def __delitem__(self, name: str) -> None:
        del self.job.context[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.job.context)

    def __len__(self) -> int:
        return len(self.job.context)

    @property
    def is_stuck(self) -> bool:
        """Whether an undo failed: something of this job may still be where it was put."""
        return bool(self.job.steps.filter(state="undo_failed").exists())

    @property
    def resource_uuid(self) -> UUID:
        """The key of the main resource; every workflow has one."""
        assert self.job.resource_uuid is not None
        return self.job.resource_uuid

    @property
    def model(self) -> type[models.Model]:
        return apps.get_model(self.job.resource_type)

    @property
    def resource(self) -> Any:
        """The main resource, read afresh from the database; None when its row is gone."""
        return self.model._default_manager.filter(pk=self.resource_uuid).first()


class Step:
    """One small act of control: rows only, in one transaction with the job's cursor. No machine is asked here.

    `releases` says that its undo gives back what the service booked when it opened the job (an address, room on a
    host): such steps come first, all of them are undone however early the job fails, and they are passed over when an
    undo before them failed, for what could not be taken back may still be in use. `queue` names the control queue whose
    workers run it. `is_slow` is for the one kind of control step that may wait (SSH): it runs outside the transaction,
    its lease kept alive, and must be idempotent by itself.
    """

    label: ClassVar[Any] = ""
    deadline: ClassVar[float] = seconds(30)
    is_cancellable: ClassVar[bool] = True
    is_slow: ClassVar[bool] = False
    releases: ClassVar[bool] = False
    queue: ClassVar[str] = "control"
    weight: ClassVar[float] = 1.0

    def applies(self, ctx: Context) -> bool:
        """Whether this step has anything to do in this job; a step that does not apply is passed over both ways."""
        return True

    def run(self, ctx: Context) -> None:
        """Do it. Raise `cloud.common.errors.Problem` to fail the job with a reason for the user."""

    def undo(self, ctx: Context) -> None:
        """Take it back; absent is fine."""


class AgentStep(Step):
    """A step that a machine does: sends one Command, and the job wakes when the answer comes."""

    deadline = minutes(1)
    is_bulk: ClassVar[bool] = False
    retries: ClassVar[int] = 2
    # An agent that fell silent after it was asked has done as it was told, whether or not its answer arrived.
    ends_its_agent: ClassVar[bool] = False

    def agent(self, ctx: Context) -> UUID | str | None:
        """The agent asked; None when there is none any more (then the step is passed over)."""
        raise NotImplementedError

    def ask(self, ctx: Context) -> Message | None:
        """The message for `run`; None passes the step over."""
        raise NotImplementedError

    def answered(self, ctx: Context, body: Document) -> None:
        """The machine did it; `body` is its answer. Rows changed here commit with the cursor."""

    def undo_ask(self, ctx: Context) -> Message | None:
        """The message for `undo`; None when there is nothing to take back."""
        return None

    def undo_answered(self, ctx: Context, body: Document) -> None:
        """The machine took it back."""


class WaitStep(Step):
    """A step that waits for a condition, and is looked at again whenever one of its topics is woken
    (`engine.wake(topic)`), and each few seconds besides."""

    deadline = minutes(1)

    def topics(self, ctx: Context) -> list[str]:
        """Names of what may change the answer, as `hello:<agent uuid>`."""
        raise NotImplementedError

    def is_met(self, ctx: Context) -> bool:
        raise NotImplementedError


class DesiredStep(WaitStep):
    """A step that waits until machines hold the desired state they should: `held >= wanted`."""

    def wants(self, ctx: Context) -> list[tuple[str, str, int]]:
        """What to wait for: (agent uuid, section, number)."""
        raise NotImplementedError

    def topics(self, ctx: Context) -> list[str]:
        return sorted({f"desired:{agent}:{section}" for agent, section, _ in self.wants(ctx)})

    def is_met(self, ctx: Context) -> bool:
        return all(_held[-1](agent, section, number) for agent, section, number in self.wants(ctx))


_held: list[Callable[[str, str, int], bool]] = []


def register_held(check: Callable[[str, str, int], bool]) -> None:
    """The port that infra fills: whether a machine holds a section's number or a later one.

    The check raises `Problem` when the machine reported that it cannot converge to it.
    """
    _held[:] = [check]


class Workflow:
    """A long act. `name` is shared by job, event and permission (`instance.start`).

    A job does the steps that it was opened with, in that order: a step that a release inserts is for the jobs opened
    after it. One that a release takes out goes to `former` for that release, so that jobs under way still know it.
    """

    name: ClassVar[str] = ""
    verb: ClassVar[Any] = ""
    activity: ClassVar[str] = ""
    steps: ClassVar[list[type[Step]]] = []
    former: ClassVar[list[type[Step]]] = []

    def succeeded(self, ctx: Context) -> None:
        """Last word of a job that ended well, in the transaction that ends it: set the settled state here."""

    def failed(self, ctx: Context) -> None:
        """Last word of a job that was undone or cancelled: the resource ends in the state it began in.

        `ctx.job.error` holds the reason. Of a job that ended with clean-ups owed it is said when these are done.
        """

    def __init_subclass__(cls) -> None:
        if cls.name:
            known = WORKFLOWS.setdefault(cls.name, cls)
            if known is not cls and known.__qualname__ != cls.__qualname__:
                raise TypeError(f"two workflows are named {cls.name}: {known} and {cls}")


WORKFLOWS: dict[str, type[Workflow]] = {}


def steps_of(job: Job) -> list[type[Step]]:
    """The steps of a job's plan, by position."""
    workflow = WORKFLOWS[job.workflow]
    names = job.plan or list(job.steps.order_by("position").values_list("name", flat=True))
    known = {step.__name__: step for step in (*workflow.former, *workflow.steps)}
    return [known.get(name) or _unknown(name) for name in names]


def _unknown(name: str) -> type[Step]:
    return type(name, (UnknownStep,), {"label": name})


class UnknownStep(Step):
    """A step of the plan that this release has no code for: the job cannot go on, and needs a person to be undone."""

    def run(self, ctx: Context) -> None:
        raise Problem(
            filled(_("This release does not know the step %(step)s any more."), step=type(self).__name__),
            code="unknown_step",
            advice=_("Try again: a new job follows the present steps."),
        )

    undo = run

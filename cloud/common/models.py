"""The bases every resource stands on. Abstract models only: this app has no tables."""

import uuid
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Missing
from cloud.common.text import filled

JobFinder = Callable[[uuid.UUID], str | None]
Refusal = Callable[[uuid.UUID], None]
_job_finders: list[JobFinder] = []
_refusals: list[Refusal] = []


def fill_job_finder(find: JobFinder, expect_none_owed: Refusal) -> None:
    """Say who finds the job at work on a resource (its address in the API), and who raises Conflict for what an ended
    job still owes there; called once, by `cloud.jobs`."""
    _job_finders[:], _refusals[:] = [find], [expect_none_owed]


class ResourceQuerySet(models.QuerySet[Any]):
    """Querysets scoped to the caller in one place."""

    def visible_to(self, actor: Actor) -> Self:
        """Only what the actor may see: everything for the platform, own projects' and shared rows for others."""
        return self if actor.sees_all else self.filter(project_id__in=actor.projects)

    def reach(self, uuid: Any, actor: Actor) -> Any:
        """The one visible row with this uuid. Raises Missing, whether it does not exist or is not the caller's."""
        found = self.visible_to(actor).filter(pk=uuid).first()
        if found is None:
            raise Missing(_("There is no such resource."), resource=str(uuid))
        return found


class Resource(models.Model):
    """A thing users name, see and act on: uuid4 key (the same in libvirt), a name, a project, its birth.

    A concrete model may set `kind_word`, the word for permissions and audit (`ip_range`); default: the model's name.
    """

    kind_word: ClassVar[str] = ""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="")
    project = models.ForeignKey("accounts.Project", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ResourceQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ["created_at", "uuid"]

    def __str__(self) -> str:
        return self.name


class Stateful(models.Model):
    """`state` is the settled life cycle, `activity` what a job is doing to it now ("" when nothing)."""

    state = models.CharField(max_length=32)
    activity = models.CharField(max_length=32, blank=True, default="")
    state_reason = models.TextField(blank=True, default="")

    class Meta:
        abstract = True

    def expect_state(self, *states: str) -> None:
        """Raise Conflict unless the state is one of these and no job is at work on the resource; it names that job."""
        if self.activity:
            for expect_none_owed in _refusals:
                expect_none_owed(self.pk)
            raise busy(self, next((find(self.pk) for find in _job_finders), None))
        if self.state not in states:
            raise wrong_state(self, states)


def busy(row: Any, job: str | None) -> Conflict:
    """Why nothing else can be done with the row now: a job is at work on it, at this address in the API."""
    return Conflict(
        filled(_("%(name)s is busy: %(activity)s."), name=str(row), activity=getattr(row, "activity", "") or "…"),
        code="busy",
        advice=_("Wait for the running job or cancel it, then try again."),
        activity=getattr(row, "activity", ""),
        job=job,
    )


def wrong_state(row: Any, states: Iterable[str]) -> Conflict:
    """Why an act that needs one of these states cannot be done with the row."""
    return Conflict(
        filled(
            _("%(name)s is %(state)s; this needs %(states)s."),
            name=str(row),
            state=row.state,
            states=", ".join(states),
        ),
        code="wrong_state",
        state=row.state,
        needed=list(states),
    )


class Availability(models.TextChoices):
    ENABLED = "enabled"
    DISABLED = "disabled"
    MAINTENANCE = "maintenance"


class Available(models.Model):
    """Whether an administrator lets new work land here."""

    availability = models.CharField(max_length=16, choices=Availability, default=Availability.ENABLED)

    class Meta:
        abstract = True


class Connection(models.TextChoices):
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Connected(models.Model):
    """The link to the agent behind a resource."""

    connection = models.CharField(max_length=16, choices=Connection, default=Connection.CONNECTING)
    connection_reason = models.TextField(blank=True, default="")
    connection_changed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

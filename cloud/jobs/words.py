"""A job in words: its verb, its steps, its progress, the reason it failed, in the reader's language."""

from typing import Any

from django.conf import settings
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from cloud.common.text import filled
from cloud.jobs import agents, cleanups
from cloud.jobs.models import Job, JobState, JobStep
from cloud.jobs.workflow import WORKFLOWS, Step, steps_of


def verb(job: Job) -> Any:
    """What the job does, as a button would say it."""
    name = job.context.get("verb", "") if job.workflow == "batch" else job.workflow
    workflow = WORKFLOWS.get(name)
    return workflow.verb if workflow else name


def step_of(job: Job, position: int) -> type[Step] | None:
    steps = steps_of(job) if job.workflow in WORKFLOWS else []
    return steps[position] if 0 <= position < len(steps) else None


def step_label(job: Job) -> Any:
    """The step at work, or why it waits; empty when the job has ended."""
    if job.finished_at:
        return ""
    step = step_of(job, job.cursor)
    label = step.label if step else ""
    if any(topic.startswith(cleanups.TOPIC) for topic in job.waiting):
        return filled(_("Waiting until the machine has cleaned up after earlier jobs: %(step)s"), step=label)
    if job.state == JobState.UNDOING:
        return _("Undoing: %(step)s") % {"step": label}
    return label


def label_of(step: JobStep, job: Job) -> Any:
    known = step_of(job, step.position)
    return known.label if known and known.__name__ == step.name else step.name


def label_at(job: Job, position: int) -> Any:
    """The label of a step of the job's plan."""
    step = step_of(job, position)
    return step.label if step else ""


def is_cancellable(job: Job) -> bool:
    """Whether `cancel` would be accepted now."""
    if job.state not in (JobState.QUEUED, JobState.RUNNING):
        return False
    step = step_of(job, job.cursor)
    return step.is_cancellable if step else job.workflow == "batch"


def progress(jobs: list[Job]) -> dict[Any, dict[str, Any]]:
    """What machines say of the steps at work, by job: one look-up for a whole page of jobs."""
    waits = [(key, held, job.pk) for job in jobs for key, held in job.waiting.items() if "agent" in held]
    keys = {key: pk for key, _held, pk in waits}
    return {keys[key]: said for key, said in agents.progress({key: held["agent"] for key, held, _ in waits}).items()}


def error(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """A kept failure with its texts in the reader's language."""
    if document is None:
        return None
    language = get_language() or settings.LANGUAGE_CODE

    def said(value: Any) -> Any:
        if isinstance(value, dict) and settings.LANGUAGE_CODE in value:
            return value.get(language) or value[settings.LANGUAGE_CODE]
        return value

    return {name: said(value) for name, value in document.items()}

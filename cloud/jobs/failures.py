"""Why a job failed, as a document kept with it in every language of the platform."""

from typing import Any

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.text import filled
from cloud.common.wire import Document, Failure, storable
from cloud.jobs.workflow import Step


def _in_every_language(text: Any) -> dict[str, str]:
    said = {}
    for language, _name in settings.LANGUAGES:
        with translation.override(language):
            said[language] = str(text)
    return said


def document(error: Exception) -> Document:
    """{code, title, detail, advice}; the texts as {language: text}."""
    if not isinstance(error, Problem):
        error = Problem(
            filled(_("An error inside the platform: %(error)s"), error=f"{type(error).__name__}: {error}"),
            code="internal_error",
            advice=_("Try again; if it happens again, report it with the job's id."),
        )
    said = {
        "code": error.code,
        "title": _in_every_language(error.title),
        "detail": _in_every_language(error.detail),
        "advice": _in_every_language(error.advice),
        "errors": {name: [str(text) for text in texts] for name, texts in error.errors.items()},
        **{name: value for name, value in error.extra.items() if isinstance(value, (str, int, float, list, dict))},
    }
    return storable(said)


def cancelled() -> Document:
    return document(Problem(_("The job was cancelled."), code="cancelled"))


UNKNOWN = _("Whether it was done is not known; the machine tells when it answers again.")


def timed_out(step: Step, *, is_unknown: bool = False) -> Problem:
    """With `is_unknown` nobody can say whether a machine did it, and nothing takes it back."""
    return Problem(
        filled(_("“%(step)s” took longer than %(seconds)d seconds."), step=step.label, seconds=step.deadline),
        code="timed_out",
        advice=UNKNOWN if is_unknown else _("Check that the machine is connected and not overloaded, then try again."),
        **_outcome(is_unknown),
    )


def agent_lost(step: Step, *, is_unknown: bool = False) -> Problem:
    taken_back = _("What it has of this is taken back as soon as it answers again. Try again on another machine.")
    return Problem(
        filled(_("The machine stopped answering while “%(step)s” was at work."), step=step.label),
        code="agent_lost",
        advice=UNKNOWN if is_unknown else taken_back,
        **_outcome(is_unknown),
    )


def _outcome(is_unknown: bool) -> dict[str, Any]:
    return {"outcome": "unknown"} if is_unknown else {}


ADVICE = {
    "rejected": _("Correct what is said above and try again."),
    "unsupported": _("Use a machine or setting that supports this."),
    "transient": _("Try again in a moment."),
}


def of_agent(failure: Failure) -> Problem:
    """What a machine answered, as a problem for the user."""
    return Problem(failure.detail, code=failure.code, advice=ADVICE.get(failure.nature, ""), nature=failure.nature)

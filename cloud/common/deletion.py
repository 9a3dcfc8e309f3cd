"""Deleting what others may lean on: shown before it is done, and done only as it was shown."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from django.core import signing
from django.db import models
from django.db.models import ProtectedError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Invalid, Problem
from cloud.common.relations import Effect
from cloud.common.resources import kind_of

HEADER = "X-Preview-Token"
GOOD_FOR_S = 900
_SALT = "mica.deletion"


class PreviewRequired(Problem):
    status, code, title = 428, "preview_required", gettext_lazy("Look at what will happen first")


def delete(row: models.Model) -> bool:
    """Delete the row; False when it was gone already.

    Raises Conflict (`in_use`), saying how many of what lean on it, when it cannot go.
    """
    try:
        return bool(row.delete()[1].get(row._meta.label))
    except ProtectedError as error:
        raise in_use(error) from error


def in_use(error: ProtectedError) -> Conflict:
    """The conflict that a protected row means: `uses` counts what leans on it by kind."""
    uses: dict[str, Any] = dict(Counter(kind_of(row) for row in error.protected_objects))
    return Conflict(
        _("This is still in use: %(uses)s.") % {"uses": ", ".join(f"{count} {kind}" for kind, count in uses.items())},
        code="in_use",
        advice=_("Delete what uses it first."),
        uses=uses,
    )


def token(rows: Sequence[Any], verb: str, effects: Sequence[Effect], actor: Actor) -> str:
    """The word of who has seen these effects: signed, good for 15 minutes, for this actor, these rows and this act."""
    return signing.dumps([_about(rows, verb, actor), _digest(effects)], salt=_SALT, compress=True)


def expect_seen(
    word: str | None,
    rows: Sequence[Any],
    verb: str,
    actor: Actor,
    *,
    effects: Callable[[], Sequence[Effect]],
    is_required: bool = True,
) -> None:
    """Raise unless the word is of who has seen what the act does now (`effects`); call it in the act's transaction.

    Raises PreviewRequired (428) without a word where one is required, Invalid (`bad_preview_token`) for what is none,
    Conflict (`preview_stale`) with the `difference` when something changed since, or when it is too old.
    """
    if word is None:
        if not is_required:
            return
        raise PreviewRequired(
            _("This needs the token of its preview."),
            advice=_("Ask the same with ?dry_run=1, look at the effects, then send the token as X-Preview-Token."),
        )
    try:
        about, before = signing.loads(word, salt=_SALT)
        signing.loads(word, salt=_SALT, max_age=GOOD_FOR_S)
        is_late = False
    except signing.SignatureExpired:
        is_late = True
    except (signing.BadSignature, ValueError, TypeError, UnicodeError):
        raise _bad() from None
    if about != _about(rows, verb, actor):
        raise _bad()
    difference = _difference(before, _digest(effects()))
    if is_late or difference:
        raise Conflict(
            _("What this does has changed since it was shown.")
            if difference
            else _("The preview is older than 15 minutes."),
            code="preview_stale",
            advice=_("Look at a new preview, then repeat with its token."),
            difference=difference,
        )


def _about(rows: Sequence[Any], verb: str, actor: Actor) -> str:
    keys = ",".join(sorted(str(row.pk) for row in rows))
    asked = f"{kind_of(type(rows[0]))} {verb} {actor.user or actor.name} {keys}"
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


def _digest(effects: Sequence[Effect]) -> list[list[Any]]:
    return [[effect.kind, effect.effect, effect.count, effect.digest] for effect in effects]


def _difference(before: list[list[Any]], now: list[list[Any]]) -> list[dict[str, Any]]:
    """[{kind, effect, before, now}]: counts, for every kind that other rows are meant of."""
    was = {(kind, effect): (count, digest) for kind, effect, count, digest in before}
    is_now = {(kind, effect): (count, digest) for kind, effect, count, digest in now}
    return [
        {"kind": kind, "effect": effect, "before": was.get(key, (0, ""))[0], "now": is_now.get(key, (0, ""))[0]}
        for key in {**was, **is_now}
        for kind, effect in [key]
        if was.get(key) != is_now.get(key)
    ]


def _bad() -> Invalid:
    return Invalid(
        _("The preview token is not one for this."),
        code="bad_preview_token",
        advice=_("Ask the same with ?dry_run=1, and send the token of its answer."),
    )

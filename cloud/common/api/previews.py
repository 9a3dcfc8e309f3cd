"""Looking at a deletion before it is done: `?dry_run=1` answers its effects and a token that the deed carries."""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter

from cloud.common import acts, deletion, relations
from cloud.common.actor import Actor
from cloud.common.api.links import url_of
from cloud.common.errors import Invalid

_WORDS = {"1": True, "true": True, "0": False, "false": False}
PARAMETERS = [
    OpenApiParameter(
        "dry_run",
        {"type": "string", "enum": sorted(_WORDS)},
        description="With 1, nothing is done: the answer is what would happen, and a token.",
    ),
    OpenApiParameter(
        deletion.HEADER,
        {"type": "string"},
        OpenApiParameter.HEADER,
        description="The token of a preview: the deed is done only as it was shown (409 `preview_stale` otherwise). "
        "Important resources are not deleted without one (428 `preview_required`).",
    ),
]


def is_dry(request: Any) -> bool:
    """Whether the caller only wants to look. Raises Invalid for a value that says neither."""
    word = request.query_params.get("dry_run")
    if word is None:
        return False
    if word not in _WORDS:
        raise Invalid(_("Give dry_run as 1, or leave it out."), errors={"dry_run": [_("Give true or false.")]})
    return _WORDS[word]


def show(performed: Any, rows: Sequence[Any], actor: Actor) -> dict[str, Any]:
    """What a deletion of these rows (of one kind) would do, as the API shows it. Changes nothing."""
    effects = relations.effects(rows, performed.name, actor, own=performed.effect)
    return document(performed, rows, effects, actor)


def document(performed: Any, rows: Sequence[Any], effects: Sequence[relations.Effect], actor: Actor) -> dict[str, Any]:
    """A preview: the effects, whether each row's act is possible now, and the token of who has seen them."""
    against = performed.act.against(rows, actor, acts.holders(rows)) if performed.act else {}
    return {
        "effects": [
            {
                "kind": effect.kind,
                "effect": effect.effect,
                "count": effect.count,
                "text": effect.text,
                "sample": [{"uuid": str(row.pk), "name": str(row), "url": url_of(row)} for row in effect.rows],
            }
            for effect in effects
        ],
        "results": [
            {"uuid": str(row.pk), "name": str(row), "url": url_of(row), **acts.answer(against.get(row.pk))}
            for row in rows
        ],
        "is_possible": not against,
        "token": deletion.token(rows, performed.name, effects, actor),
        "token_ttl_s": deletion.GOOD_FOR_S,
    }


def expect_seen(performed: Any, rows: Sequence[Any], request: Any) -> None:
    """Raise unless the request carries the token of what the deletion does now, where one is needed or sent."""
    deletion.expect_seen(
        request.headers.get(deletion.HEADER),
        rows,
        performed.name,
        request.actor,
        effects=lambda: relations.effects(rows, performed.name, request.actor, own=performed.effect),
        is_required=performed.needs_preview,
    )

"""What stands on what, declared by the apps that know: so deletions are refused, and previewed, in the same words.

declare(Zone, Cluster, by="zone", effect=BLOCKS)
declare(Instance, Volume, by="instance_uuid", effect=RECYCLED)
declare(Instance, Volume, by="instance_uuid", effect=LOST, verb="expunge")
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.postgres.aggregates import StringAgg
from django.db.models import CharField, Count, F, Func, Model, Q, QuerySet, TextField, UUIDField, Value
from django.db.models.functions import Cast
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.errors import Conflict, Problem
from cloud.common.resources import kind_of
from cloud.common.text import filled

BLOCKS, LOST, RECYCLED, DETACHES, STAYS = "blocks", "lost", "recycled", "detaches", "stays"
TEXTS = {
    BLOCKS: _("%(count)d × %(kind)s: nothing is deleted while they are there; delete or move them first."),
    LOST: _("%(count)d × %(kind)s: deleted for good."),
    RECYCLED: _("%(count)d × %(kind)s: into the recycle bin, can be recovered."),
    DETACHES: _("%(count)d × %(kind)s: stays, and refers to it no longer."),
    STAYS: _("%(count)d × %(kind)s: stays as it is."),
}
SHOWN = 5


@dataclass(frozen=True)
class Relation:
    """Rows of a kind that stand on a resource through a column, and what a deletion of the resource does to them.

    `verb` is the act it is about. `where` narrows the rows.
    """

    of: type[Model]
    model: type[Model]
    by: str
    effect: str
    verb: str = "delete"
    where: Q = field(default_factory=Q)
    kind: str = ""

    def rows(self, keys: Iterable[Any]) -> QuerySet[Any]:
        found: QuerySet[Any] = self.model._default_manager.filter(self.where, **{f"{self.by}__in": list(keys)})
        return found


_relations: list[Relation] = []
_late: list[Callable[[], None]] = []


def declare(
    of: type[Model], model: type[Model], *, by: str, effect: str, verb: str = "delete", where: Q | None = None
) -> Relation:
    """Say that deleting (`verb`) an `of` has this effect on the rows of `model` whose column `by` names it."""
    relation = Relation(of, model, by, effect, verb, where or Q(), kind_of(model))
    if relation not in _relations:
        _relations.append(relation)
    return relation


def declare_late(declaring: Callable[[], None]) -> None:
    """Have this called before the first question: for who declares relations of models that are not loaded yet."""
    _late.append(declaring)


def of(model: type[Model], verb: str = "delete") -> list[Relation]:
    """The relations that such a deletion touches."""
    while _late:
        _late.pop(0)()
    return [relation for relation in _relations if relation.of is model and relation.verb == verb]


def blocking(rows: Sequence[Any], verb: str = "delete") -> dict[Any, dict[str, int]]:
    """What keeps each of these rows (of one model) from being deleted, by its key: {kind: count}. One query."""
    asked = [relation for relation in of(type(rows[0]), verb) if relation.effect == BLOCKS] if rows else []
    if not asked:
        return {}
    keys = [row.pk for row in rows]
    counts = [
        relation.rows(keys)
        .order_by()
        .values(standing_on=Cast(F(relation.by), UUIDField()), kind_word=Value(relation.kind, CharField()))
        .annotate(number=Count("pk", distinct=True))
        .values_list("standing_on", "kind_word", "number")
        for relation in asked
    ]
    found: dict[Any, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, kind, number in counts[0].union(*counts[1:], all=True) if len(counts) > 1 else counts[0]:
        found[key][kind] += number
    return {key: dict(found[key]) for key in keys if key in found}


def nothing_blocks(rows: Sequence[Any], actor: Actor) -> dict[Any, Problem]:
    """A check of acts that delete: `in_use`, with what uses the row. A few names are told for one row alone."""
    counts = blocking(rows)
    return {row.pk: in_use(row, counts[row.pk], is_named=len(rows) == 1) for row in rows if row.pk in counts}


def in_use(row: Any, counts: dict[str, int], *, is_named: bool) -> Conflict:
    """Why the row cannot be deleted: so many of each kind stand on it."""
    used_by = [{"kind": kind, "count": count} for kind, count in counts.items()]
    for use in used_by if is_named else ():
        use["names"] = _names(row, str(use["kind"]))  # type: ignore[assignment]
    return Conflict(
        filled(
            _("%(name)s is in use: %(uses)s."),
            name=str(row),
            uses=", ".join(f"{count} × {kind}" for kind, count in counts.items()),
        ),
        code="in_use",
        advice=_("Delete or move what uses it first."),
        used_by=used_by,
    )


def _names(row: Any, kind: str) -> list[str]:
    names: list[str] = []
    for relation in of(type(row)):
        if relation.kind == kind and relation.effect == BLOCKS:
            names += [str(found) for found in relation.rows([row.pk]).order_by("pk")[:SHOWN]]
    return names[:SHOWN]


@dataclass(frozen=True)
class Effect:
    """What a deletion does to rows of one kind. `digest` changes when other rows are meant; `rows` are a few of them
    that the asker may see."""

    kind: str
    effect: str
    count: int
    digest: str
    rows: tuple[Any, ...] = ()
    said: str = ""

    @property
    def text(self) -> str:
        return self.said or str(TEXTS[self.effect]) % {"count": self.count, "kind": self.kind}


def effects(rows: Sequence[Any], verb: str, actor: Actor, *, own: str) -> list[Effect]:
    """What a deletion of these rows (of one model) does: to themselves (`own`), and to all that stands on them."""
    model = type(rows[0])
    keys = [row.pk for row in rows]
    told = [_effect(kind_of(model), own, model._default_manager.filter(pk__in=keys), actor)]
    by_kind: dict[tuple[str, str], QuerySet[Any]] = {}
    for relation in of(model, verb):
        found = relation.model._default_manager.filter(pk__in=relation.rows(keys).order_by().values("pk"))
        before = by_kind.get((relation.kind, relation.effect))
        by_kind[relation.kind, relation.effect] = found if before is None else before | found
    told += [_effect(kind, effect, found, actor) for (kind, effect), found in by_kind.items()]
    return [effect for effect in told if effect.count]


def _effect(kind: str, effect: str, found: QuerySet[Any], actor: Actor) -> Effect:
    key = Cast("pk", TextField())
    summary = found.order_by().aggregate(
        number=Count("pk"),
        digest=Func(StringAgg(key, Value(","), order_by="pk"), function="md5", output_field=TextField()),
    )
    visible = found.visible_to(actor) if hasattr(found, "visible_to") else found.none()
    shown = tuple(visible.order_by("pk")[:SHOWN]) if summary["number"] else ()
    return Effect(kind, effect, summary["number"], (summary["digest"] or "")[:12], shown)

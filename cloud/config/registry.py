"""Settings that an administrator may change while the platform runs: declared in code, beside the app they serve."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args
from uuid import UUID

from django.utils.translation import gettext as _

from cloud.common.errors import Invalid, Missing

Kind = Literal["ratio", "integer", "size_bytes", "duration_s", "boolean", "text"]
_WHOLE = ("integer", "size_bytes", "duration_s")


@dataclass(frozen=True)
class Setting:
    """One declared setting. `scopes` are the resource kinds that may override the global value, broadest first."""

    name: str
    kind: Kind
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    scopes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    label: Any = field(default="", compare=False)
    help: Any = field(default="", compare=False)

    def clean(self, value: Any) -> Any:
        """The value as it is stored. Raises Invalid, with the reason under `value`, when it does not fit."""
        reason = self._reason_against(value)
        if reason:
            raise Invalid(
                _("%(name)s cannot take this value.") % {"name": self.name},
                code="invalid_setting",
                errors={"value": [reason]},
            )
        return float(value) if self.kind == "ratio" else value

    def _reason_against(self, value: Any) -> str:
        if self.kind == "boolean":
            return "" if isinstance(value, bool) else _("Give true or false.")
        if self.kind == "text":
            return self._reason_against_text(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return _("Give a number.")
        if not math.isfinite(value):
            return _("Give a finite number.")
        if self.kind in _WHOLE and not isinstance(value, int):
            return _("Give a whole number.")
        if self.minimum is not None and value < self.minimum:
            return _("Give %(minimum)s or more.") % {"minimum": self.minimum}
        if self.maximum is not None and value > self.maximum:
            return _("Give %(maximum)s or less.") % {"maximum": self.maximum}
        return ""

    def _reason_against_text(self, value: Any) -> str:
        if not isinstance(value, str):
            return _("Give a text.")
        if "\x00" in value or len(value) > 4096:
            return _("Give a text of at most 4096 characters without NUL.")
        if self.choices and value not in self.choices:
            return _("Give one of: %(choices)s.") % {"choices": ", ".join(self.choices)}
        return ""


_DECLARED: dict[str, Setting] = {}


def declare(
    name: str,
    kind: Kind,
    default: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    scopes: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    label: Any = "",
    help: Any = "",
) -> Setting:
    """Declare a setting, in `<app>/config.py`.

    `kind` is the shape of the value: ratio (a factor), integer, size_bytes, duration_s (whole seconds), boolean, text.
    Raises ValueError when the name is taken by another declaration or the default does not fit its own rules.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"{name}: there is no kind {kind!r}")
    setting = Setting(name, kind, default, minimum, maximum, tuple(scopes), tuple(choices), label, help)
    try:
        setting.clean(default)
    except Invalid as invalid:
        raise ValueError(f"{name}: the default {default!r} does not fit: {invalid.errors}") from invalid
    if _DECLARED.setdefault(name, setting) != setting:
        raise ValueError(f"the setting {name} is declared twice")
    return setting


def declared() -> dict[str, Setting]:
    """Every declared setting, by name."""
    return dict(sorted(_DECLARED.items()))


def find(name: str) -> Setting:
    """The setting of this name. Raises Missing."""
    try:
        return _DECLARED[name]
    except KeyError:
        raise Missing(_("There is no setting %(name)s.") % {"name": name}, code="unknown_setting") from None


# A setting's name and the resource it changed for (none: globally) → what whoever changes it should know.
Reaction = Callable[[str, UUID | None], Iterable[Any]]
R = TypeVar("R", bound=Reaction)
_reactions: dict[str, list[Reaction]] = {}


def on_change(*names: str) -> Callable[[R], R]:
    """Register what follows from a change of these settings, for what is kept by their values.

    Called in the transaction of the change, after the value was written; its words are told to whoever changes it.
    """

    def register(reaction: R) -> R:
        for name in names:
            reactions = _reactions.setdefault(name, [])
            if reaction not in reactions:
                reactions.append(reaction)
        return reaction

    return register


def react(name: str, scope_uuid: UUID | None) -> list[Any]:
    """Let follow what follows from a change; what is to be told of it."""
    return [note for reaction in _reactions.get(name, []) for note in reaction(name, scope_uuid)]

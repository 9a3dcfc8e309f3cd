"""The values of settings: reading them cheaply, changing them with rights, rules and audit."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from cloud.common import audit
from cloud.common.actor import Actor
from cloud.common.errors import Invalid, Missing
from cloud.common.resources import kind_of, model_of
from cloud.config import registry
from cloud.config.models import Override

# Each process may answer with a value that is this old; a change made by the process itself shows at once.
CACHE_SECONDS = 2.0
_CACHE_ENTRIES = 4096
_cache: dict[tuple[str, tuple[UUID, ...]], tuple[float, Any]] = {}


def value(name: str, *scopes: Any) -> Any:
    """The effective value of a setting for these resources (model instances, most specific first).

    The first resource with an override wins, then the global value, then the declared default. Raises Missing when no
    such setting is declared.
    """
    setting = registry.find(name)
    uuids = tuple(scope.pk for scope in scopes if scope is not None and kind_of(scope) in setting.scopes)
    key = (name, uuids)
    held = _cache.get(key)
    now = time.monotonic()
    if held is not None and held[0] > now:
        return held[1]
    found, _source = _resolve(setting, uuids)
    if len(_cache) >= _CACHE_ENTRIES:
        _cache.clear()
    _cache[key] = (now + CACHE_SECONDS, found)
    return found


def stored(*names: str) -> Callable[..., Any]:
    """A reader of these settings as the database has them at this moment: `read(name, *uuids)`, the most specific
    resource first. One query; nothing remembered is used, so what is kept by a setting can be computed from it."""
    held = {(row.name, row.scope_uuid): row.value for row in Override.objects.filter(name__in=names)}

    def read(name: str, *uuids: UUID) -> Any:
        default = registry.find(name).default
        return next((held[name, uuid] for uuid in (*uuids, None) if (name, uuid) in held), default)

    return read


def forget() -> None:
    """Drop what this process remembers of the values."""
    _cache.clear()


def effective() -> list[tuple[registry.Setting, Any, str]]:
    """Every declared setting with its global value and where that comes from: `default` or `global`. One query."""
    globals_ = dict(Override.objects.filter(scope_uuid=None).values_list("name", "value"))
    return [
        (setting, globals_.get(setting.name, setting.default), "global" if setting.name in globals_ else "default")
        for setting in registry.declared().values()
    ]


@transaction.atomic
def change(name: str, *, value: Any, actor: Actor, scope_type: str = "", scope_uuid: UUID | None = None) -> Override:
    """Give a setting a value, globally or for one resource.

    What whoever changes it should know is in `notes` of the answer. Raises Missing when the setting or the resource is
    unknown, Invalid when the value does not fit or the setting cannot be overridden for that kind of resource.
    """
    actor.require("setting.change")
    setting = registry.find(name)
    scope = _scope(setting, scope_type, scope_uuid, actor)
    row, _created = Override.objects.update_or_create(
        name=name, scope_type=scope_type, scope_uuid=scope_uuid, defaults={"value": setting.clean(value)}
    )
    audit.record("setting.change", actor=actor, resource=scope, detail={"setting": name, "value": row.value})
    _forget_now_and_on_commit()
    row.notes = registry.react(name, scope_uuid)
    return row


@transaction.atomic
def reset(name: str, *, actor: Actor, scope_type: str = "", scope_uuid: UUID | None = None) -> list[Any]:
    """Take an override back; absent is fine. The overrides of a resource that is gone can be taken back too.

    Returns what whoever does it should know.
    """
    actor.require("setting.change")
    registry.find(name)
    deleted, _rows = Override.objects.filter(name=name, scope_type=scope_type, scope_uuid=scope_uuid).delete()
    if not deleted:
        return []
    detail = {"setting": name, "scope_type": scope_type, "scope_uuid": str(scope_uuid or "")}
    audit.record("setting.reset", actor=actor, detail=detail)
    _forget_now_and_on_commit()
    return registry.react(name, scope_uuid)


def _resolve(setting: registry.Setting, uuids: tuple[UUID, ...]) -> tuple[Any, str]:
    rows = Override.objects.filter(name=setting.name).filter(Q(scope_uuid=None) | Q(scope_uuid__in=uuids))
    held = {row.scope_uuid: row for row in rows}
    for scope in (*uuids, None):
        if scope in held:
            return held[scope].value, held[scope].scope_type or "global"
    return setting.default, "default"


def _scope(setting: registry.Setting, scope_type: str, scope_uuid: UUID | None, actor: Actor) -> Any:
    if not scope_type and scope_uuid is None:
        return None
    model = model_of(scope_type) if scope_type in setting.scopes else None
    if model is None:
        raise Invalid(
            _("%(name)s cannot be set for this kind of resource.") % {"name": setting.name},
            code="invalid_scope",
            errors={"scope_type": [_("Give one of: %(scopes)s.") % {"scopes": ", ".join(setting.scopes) or "-"}]},
        )
    if scope_uuid is None:
        raise Invalid(_("Say which resource."), code="invalid_scope", errors={"scope_uuid": [_("This is needed.")]})
    found = model._default_manager.filter(pk=scope_uuid).first()
    if found is None or not actor.sees(found):
        raise Missing(_("There is no such resource."), resource=str(scope_uuid))
    return found


def _forget_now_and_on_commit() -> None:
    forget()
    transaction.on_commit(forget)

"""What a resource is called: the kind word shared by permissions, jobs, audit and scopes."""

import re
from functools import cache
from typing import Any

from django.apps import apps
from django.db import models

from cloud.common.models import Resource

_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def kind_of(resource: Any) -> str:
    """The kind of a row or a model class: the `kind` word of its class, else the class's name as `l2_network`."""
    return _kind(resource if isinstance(resource, type) else type(resource))


@cache
def _kind(model: type) -> str:
    # `kind` may also be a column, as that of an L2 network: only a word written on the class counts.
    words = (base.__dict__.get("kind") for base in model.__mro__)
    written = next((word for word in words if isinstance(word, str) and word), "")
    return written or _WORD_BEGINS.sub("_", model.__name__).lower()


@cache
def _models() -> dict[str, type[models.Model]]:
    return {kind_of(model): model for model in apps.get_models() if issubclass(model, Resource)}


def model_of(kind: str) -> type[models.Model] | None:
    """The resource model of this kind; None when there is none."""
    return _models().get(kind)

"""What a resource is called: the kind word shared by permissions, jobs, audit and scopes."""

from functools import cache
from typing import Any

from django.apps import apps
from django.db import models

from cloud.common.models import Resource


def kind_of(resource: Any) -> str:
    """The kind of a row or a model class: its `kind_word`, or the model's name in lower case without one."""
    return str(getattr(resource, "kind_word", "") or resource._meta.model_name)


@cache
def _models() -> dict[str, type[models.Model]]:
    return {kind_of(model): model for model in apps.get_models() if issubclass(model, Resource)}


def model_of(kind: str) -> type[models.Model] | None:
    """The resource model of this kind; None when there is none."""
    return _models().get(kind)

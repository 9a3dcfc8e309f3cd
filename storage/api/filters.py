"""Filters of storage's lists that are more than a column."""

from typing import ClassVar

from django_filters import rest_framework as django_filters

from cloud.common.api.filters import ResourceFilterSet
from storage.models import PrimaryStorage


class PrimaryStorageFilters(ResourceFilterSet):
    """`cluster`: the storages that are attached to it."""

    cluster = django_filters.UUIDFilter(field_name="attachments__cluster")

    class Meta:
        model = PrimaryStorage
        fields: ClassVar[list[str]] = [
            *("name", "project", "kind", "zone", "path", "state", "activity", "availability", "connection"),
        ]

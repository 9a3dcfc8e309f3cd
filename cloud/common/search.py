"""Text that lists are searched by: the searched columns of a row in one generated column, indexed by its trigrams.

A word is found anywhere in it, whatever its case: by the index from three letters on, by looking through the column
for fewer, which costs a fraction of folding each row's columns anew.
"""

from typing import Any

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Func
from django.db.models.lookups import Contains

COLUMN = "search_text"


class Folded(Func):
    """The columns in upper case, a line each: no word holds a line's end, so none reaches over two columns."""

    template = "UPPER(%(expressions)s)"
    arg_joiner = " || chr(10) || "
    output_field = models.TextField()


class Host(Func):
    """An address as text, without the mask that PostgreSQL's own cast adds."""

    function = "HOST"
    output_field = models.TextField()


class Holds(Contains):
    """`search_text__holds=word`: PostgreSQL folds the word as it folded the column."""

    lookup_name = "holds"

    def get_rhs_op(self, connection: Any, rhs: str) -> str:
        return f"LIKE UPPER({rhs})"


models.TextField.register_lookup(Holds)


def search_text(*columns: str, addresses: tuple[str, ...] = ()) -> "models.GeneratedField":
    """The generated column over these columns, none of which may be null; name it `search_text`."""
    parts = [*map(F, columns), *(Host(F(name)) for name in addresses)]
    return models.GeneratedField(expression=Folded(*parts), output_field=models.TextField(), db_persist=True)


def search_index(name: str) -> GinIndex:
    """The index of a model's `search_text`; needs the extension pg_trgm."""
    return GinIndex(fields=[COLUMN], opclasses=["gin_trgm_ops"], name=name)


def has_search_text(model: type[models.Model]) -> bool:
    return any(field.name == COLUMN for field in model._meta.concrete_fields)

"""Many rows into a table at once: PostgreSQL's COPY, fed with what models would have saved."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection, models
from django.db.models import NOT_PROVIDED
from django.utils import timezone


def copy(model: type[models.Model], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows given as {attribute name: value}; what a row leaves out is the field's default.

    Columns that the database fills itself are left to it unless the first row names them.
    """
    stream = iter(rows)
    first = next(stream, None)
    if first is None:
        return
    fields = [field for field in model._meta.concrete_fields if field.attname in first or _fills(field)]
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    with connection.cursor() as cursor:
        statement = f"COPY {connection.ops.quote_name(model._meta.db_table)} ({columns}) FROM STDIN"
        with cursor.copy(statement) as writing:
            writing.write_row(_values(fields, first))
            for row in stream:
                writing.write_row(_values(fields, row))


def _fills(field: "models.Field[Any, Any]") -> bool:
    is_databases = field.generated or isinstance(field, models.AutoField)
    return not is_databases and getattr(field, "db_default", NOT_PROVIDED) is NOT_PROVIDED


def _values(fields: "list[models.Field[Any, Any]]", row: Mapping[str, Any]) -> list[Any]:
    return [
        field.get_db_prep_save(row[field.attname] if field.attname in row else _default(field), connection)
        for field in fields
    ]


def _default(field: "models.Field[Any, Any]") -> Any:
    is_now = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
    return timezone.now() if is_now else field.get_default()

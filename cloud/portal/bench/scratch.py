"""A database of the benchmark's own beside the cloud's, gone when it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.core.management import call_command
from django.db import connection, connections
from psycopg import sql

NAME = "bench"


@contextmanager
def database() -> Iterator[None]:
    """Have this process work in an empty, migrated database; one that a killed benchmark left goes first."""
    parameters = connection.get_connection_params()  # type: ignore[no-untyped-call]
    theirs = {name: parameters[name] for name in ("host", "port", "user", "password", "dbname") if parameters.get(name)}
    home = connections.settings["default"]["NAME"]
    with psycopg.connect(**theirs, autocommit=True) as keeper:
        _drop(keeper)
        keeper.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))
        try:
            connection.close()
            connections.settings["default"]["NAME"] = NAME
            call_command("migrate", verbosity=0, interactive=False)
            yield
        finally:
            connections.close_all()
            connection.close_pool()  # type: ignore[attr-defined]
            connections.settings["default"]["NAME"] = home
            _drop(keeper)


def _drop(keeper: "psycopg.Connection[tuple[object, ...]]") -> None:
    keeper.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(NAME)))

"""Doing a thing once at a time across all processes; keeping others off until a transaction ends."""

import functools
import zlib
from collections.abc import Callable
from typing import ParamSpec

from django.db import connection

P = ParamSpec("P")


def once(name: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Run the function only when no other process is running it: a PostgreSQL advisory lock of this name.

    A caller who finds it taken returns at once. The lock is the session's and goes with the connection.
    """
    key = zlib.crc32(name.encode())

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
                if not cursor.fetchone()[0]:
                    return
                try:
                    function(*args, **kwargs)
                finally:
                    cursor.execute("SELECT pg_advisory_unlock(%s)", [key])

        return guarded

    return decorate


def hold(name: str) -> None:
    """Wait for, and hold until the caller's transaction ends, what `share` of this name keeps others from holding."""
    _lock("pg_advisory_xact_lock", name)


def share(name: str) -> None:
    """Keep, until the caller's transaction ends, others from `hold`ing this name; any number may share it at once."""
    _lock("pg_advisory_xact_lock_shared", name)


def _lock(function: str, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [name])

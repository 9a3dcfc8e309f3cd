"""Doing a thing once at a time across all processes."""

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

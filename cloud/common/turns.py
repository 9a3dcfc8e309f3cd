"""Doing an act again from its beginning when others were in its way: nothing of the turn before is kept."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import OperationalError, transaction

P = ParamSpec("P")
T = TypeVar("T")

MOST_TURNS = 30
DEADLOCK = "40P01"


def in_turns(*again: type[Exception]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Run the function in a transaction, and anew when it raises one of these or the database broke a deadlock by it.

    Inside another transaction a turn is a savepoint: what it took is let go with it. The last turn's error is raised.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def act(*args: P.args, **kwargs: P.kwargs) -> T:
            turn = 1
            while True:
                try:
                    with transaction.atomic():
                        return function(*args, **kwargs)
                except OperationalError as error:
                    if turn >= MOST_TURNS or not is_deadlock(error):
                        raise
                except again:
                    if turn >= MOST_TURNS:
                        raise
                turn += 1

        return act

    return decorate


def is_deadlock(error: OperationalError) -> bool:
    """Whether the database gave this transaction up because it and another waited for each other."""
    return getattr(error.__cause__, "sqlstate", None) == DEADLOCK

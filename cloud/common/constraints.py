"""Turning a broken database constraint into a problem that a person understands."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import IntegrityError, transaction

from cloud.common.errors import Problem


@contextmanager
def told(problems: dict[str, Problem]) -> Iterator[None]:
    """Raise the problem listed under a constraint's name when the block breaks that constraint.

    The block runs in a savepoint, so that the caller's transaction lives on. Other errors pass unchanged.
    """
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        problem = problems.get(broken(error))
        if problem is None:
            raise
        raise problem from error


def broken(error: IntegrityError) -> str:
    """The name of the constraint that was broken; "" when the database does not say."""
    return getattr(getattr(error.__cause__, "diag", None), "constraint_name", None) or ""

"""The database of a chaos case: everything inside one transaction, in which savepoints stand in for commits.

So that a world is put back in a millisecond, whatever happened in it; and so that a commit, a statement and the clock
are ours: a process dies before or after its commit, the server goes away at any statement, time goes on when told to.
"""

import itertools
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import OperationalError, connection

# What the code asks of the server's clock, moved ahead by a setting of the session.
_CLOCKS = """
CREATE SCHEMA chaos_clock;
CREATE FUNCTION chaos_clock.{name}() RETURNS timestamptz LANGUAGE sql STABLE AS
  $$ SELECT pg_catalog.{name}() + make_interval(secs => current_setting('mica.ahead')::float8) $$;
"""


class Killed(BaseException):
    """The process dies here: nothing of its open transaction stays, nothing after this happens."""


@dataclass
class Blow:
    """What befalls the job `job` in the `nth` transaction in which its step at `position` is looked at.

    `how`: `killed` and `killed_after` (before and after the commit), `broken` (the server goes away at the first
    statement, or before the commit where other steps come first), `unheard` (at the commit, which is lost), `unknown`
    (at the commit, which is not).
    """

    job: UUID
    direction: str
    position: int
    nth: int
    how: str
    seen: int = 0
    is_armed: bool = False
    has_struck: bool = False
    began_at: tuple[int, str] | None = None

    @property
    def is_first(self) -> bool:
        """Whether the transaction began at the step."""
        return self.began_at == (self.position, self.direction)


class Vault:
    """The open transaction on Django's connection. `save` and `restore` nest like the savepoints they are."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.blow: Blow | None = None
        # Struck at the n-th statement from now: `killed` or `broken`.
        self.at_statement: tuple[int, str] | None = None
        self.statements = 0
        self.is_down = self.is_dead = False
        # Only what control does is struck, not what the case itself looks up.
        self.is_control = False
        self._names = itertools.count()
        self._is_open = False

    def open(self, patch: pytest.MonkeyPatch) -> None:
        connection.ensure_connection()
        for name, value in (
            ("_set_autocommit", self._begin_or_end),
            ("_commit", self._commit),
            ("_rollback", self._rollback),
            ("close", self._close),
        ):
            patch.setattr(connection, name, value)
        patch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
        wall = time.time
        patch.setattr(time, "time", lambda: wall() + self.ahead_s)
        self.raw("BEGIN")
        for index, name in enumerate(("statement_timestamp", "clock_timestamp", "now")):
            text = _CLOCKS.format(name=name)
            self.raw(text if not index else text.replace("CREATE SCHEMA chaos_clock;", ""))
        self.raw("SET LOCAL search_path = chaos_clock, pg_catalog, public")
        self._set_clock()
        connection.execute_wrappers.append(self._execute)

    def close(self) -> None:
        connection.execute_wrappers.remove(self._execute)
        self.revive()
        self.raw("ROLLBACK")

    def raw(self, statement: str, *values: Any) -> Any:
        """Past Django and past all blows."""
        assert isinstance(connection.connection, psycopg.Connection)
        return connection.connection.execute(statement, values or None)

    def advance(self, seconds: float) -> None:
        self.ahead_s += seconds
        self._set_clock()

    def _set_clock(self) -> None:
        self.raw(f"SET LOCAL mica.ahead = '{self.ahead_s}'")

    # snapshots

    def save(self) -> tuple[str, float]:
        name = f"world_{next(self._names)}"
        self.raw(f"SAVEPOINT {name}")
        return name, self.ahead_s

    def restore(self, saved: tuple[str, float]) -> None:
        """Back to that moment; what was saved after it is no more."""
        self.revive()
        name, self.ahead_s = saved
        self.raw(f"ROLLBACK TO SAVEPOINT {name}")
        self._set_clock()
        self.blow = self.at_statement = None

    def revive(self) -> None:
        """Another process begins: what the last one had open is rolled back, its connection is forgotten."""
        self.is_down = self.is_dead = False
        if self.blow:
            self.blow.is_armed = False
        if self._is_open:
            self._roll_back()
        connection.in_atomic_block = connection.needs_rollback = False
        connection.closed_in_transaction = connection.run_commit_hooks_on_set_autocommit_on = False
        connection.autocommit, connection.commit_on_exit = True, True
        connection.savepoint_ids, connection.run_on_commit, connection.atomic_blocks = [], [], []
        self.raw("SELECT pg_advisory_unlock_all()")

    # what Django does with its connection

    def _begin_or_end(self, autocommit: bool) -> None:
        if autocommit:
            if self.is_dead:
                raise Killed
            return
        self._expect_up()
        if self.is_control and self.blow and not self.blow.has_struck:
            self._look_at(self.blow)
        self.raw("SAVEPOINT app")
        self._is_open = True

    def _look_at(self, blow: Blow) -> None:
        """As the transaction begins: where the job is, and whether it is struck at its first statement."""
        blow.began_at = self._place_of(blow)
        if blow.how == "broken" and blow.began_at == (blow.position, blow.direction):
            blow.is_armed = blow.seen == blow.nth
            blow.seen += 1

    def _look_back_at(self, blow: Blow) -> None:
        """As it is about to commit: whether the step was done in it, perhaps with others before."""
        began, ended = blow.began_at, self._place_of(blow)
        if began is None or ended is None or began[1] != blow.direction or (blow.how == "broken" and blow.is_first):
            return
        last = ended[0] if ended[1] == began[1] == "run" else began[0]
        if began[0] <= blow.position <= last:
            blow.is_armed = blow.seen == blow.nth
            blow.seen += 1

    def _place_of(self, blow: Blow) -> tuple[int, str] | None:
        found = self.raw("SELECT cursor, state FROM jobs_job WHERE uuid = %s", blow.job).fetchone()
        return found and (found[0], "undo" if found[1] == "undoing" else "run")

    def _commit(self) -> None:
        self._expect_up()
        if self.is_control and self.blow and not self.blow.has_struck:
            self._look_back_at(self.blow)
        armed = self.blow if self.blow and self.blow.is_armed else None
        if armed and armed.how in ("killed", "unheard", "broken"):
            self._strike(armed)
        with connection.wrap_database_errors:
            # What is checked at commit is checked now.
            self.raw("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; RELEASE SAVEPOINT app")
        self._is_open = False
        if armed and armed.how == "killed_after":
            # After this commit, before anything that waits for it.
            armed.has_struck, armed.is_armed, self.is_dead = True, False, True
        elif armed:
            self._strike(armed)

    def _strike(self, blow: Blow) -> None:
        blow.has_struck, blow.is_armed = True, False
        self._fall(blow.how)

    def _fall(self, how: str) -> None:
        if how.startswith("killed"):
            self.is_dead = True
            raise Killed
        self.is_down = True
        raise OperationalError("the server closed the connection unexpectedly")

    def _rollback(self) -> None:
        if self.blow:
            self.blow.is_armed = False
        if self._is_open:
            self._roll_back()

    def _roll_back(self) -> None:
        self.raw("ROLLBACK TO SAVEPOINT app; RELEASE SAVEPOINT app")
        self._is_open = False

    def _close(self) -> None:
        connection.run_on_commit = []

    def _execute(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        self._expect_up()
        self.statements += self.is_control
        if self.is_control and self.at_statement:
            left, how = self.at_statement
            self.at_statement = (left - 1, how) if left else None
            if not left:
                self._fall(how)
        if self.blow and self.blow.is_armed and self.blow.how == "broken":
            self._strike(self.blow)
        return execute(sql, params, many, context)

    def _expect_up(self) -> None:
        if self.is_dead:
            raise Killed
        if self.is_down:
            raise OperationalError("the connection is closed")

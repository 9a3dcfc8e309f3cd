"""What an agent must not forget when it dies: which commands it took, how they ended, and what state it should hold.

One SQLite file in WAL mode with `synchronous=NORMAL`: a killed agent forgets nothing, a machine that loses power may
forget its last moments, and then has a new boot id. The rules that keep a late message from acting live in `accept`.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cloud.common.wire import Answer, Command, Document, Failure

KEEP_S = 7 * 86400

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY, resource TEXT NOT NULL, job TEXT NOT NULL, step TEXT NOT NULL, direction TEXT NOT NULL,
    attempt INTEGER NOT NULL, accepted_at REAL NOT NULL, answer TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_step ON keys (job, step, direction, attempt);
CREATE INDEX IF NOT EXISTS keys_accepted_at ON keys (accepted_at);
CREATE TABLE IF NOT EXISTS resources (
    resource TEXT PRIMARY KEY, sequence INTEGER NOT NULL, touched_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sections (
    section TEXT PRIMARY KEY, number INTEGER NOT NULL, body TEXT NOT NULL, held INTEGER NOT NULL, boot_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nonces (nonce TEXT PRIMARY KEY, exp REAL NOT NULL) WITHOUT ROWID;
"""


class Verdict(Enum):
    """What is to be done with a command that arrived: work on it, or send the answer that comes with the verdict."""

    WORK = "work"
    ANSWER = "answer"


@dataclass(frozen=True)
class StoredSection:
    """A section as the machine was last told it: `held` is the number converged to since the machine started, or 0."""

    section: str
    number: int
    body: Document
    held: int


class Journal:
    """The journal of agent `agent`, at `path`, or in memory alone. Thread-safe.

    A journal of another agent at that path starts empty. What was done before the machine was last started (another
    `boot_id`) may be gone with that: such a command, asked for once more because its answer was lost, is done again.
    """

    def __init__(self, path: Path | None, agent: str, boot_id: str = "") -> None:
        self._agent = agent
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Autocommit: transactions are opened by hand where a rule reads and writes.
        place = ":memory:" if path is None else path
        self._database = sqlite3.connect(place, isolation_level=None, check_same_thread=False, timeout=10)
        if path is not None:
            path.chmod(0o600)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        with self._transaction() as database:
            owner = database.execute("SELECT value FROM meta WHERE name = 'agent'").fetchone()
            if owner is not None and owner[0] != agent:
                for table in ("keys", "resources", "sections", "nonces"):
                    database.execute(f"DELETE FROM {table}")  # noqa: S608 - literal names
            database.execute("INSERT OR REPLACE INTO meta VALUES ('agent', ?)", (agent,))
            booted = database.execute("SELECT value FROM meta WHERE name = 'boot_id'").fetchone()
            if booted is not None and booted[0] != boot_id:
                database.execute("UPDATE keys SET answer = NULL WHERE direction = 'run'")
            database.execute("INSERT OR REPLACE INTO meta VALUES ('boot_id', ?)", (boot_id,))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def accept(self, command: Command) -> tuple[Verdict, Answer | None]:
        """Take a command into the journal, or say why not.

        A finished key is answered again. An older job's key is refused (`refused_late`), so is an earlier attempt once
        a later one was taken; so is a run once the undo of its step was taken (`refused_undone`). A key that was taken
        but never finished (the agent died) is worked on again: handlers bear that.
        """
        with self._transaction() as database:
            known = database.execute("SELECT answer FROM keys WHERE key = ?", (command.key,)).fetchone()
            if known is not None and known[0] is not None:
                return Verdict.ANSWER, Answer.from_document(json.loads(known[0]))
            if refusal := self._refusal(database, command):
                return Verdict.ANSWER, Answer(command.key, self._agent, failure=refusal)
            now = time.time()
            database.execute(
                "INSERT INTO resources VALUES (?, ?, ?) ON CONFLICT (resource)"
                " DO UPDATE SET sequence = excluded.sequence, touched_at = excluded.touched_at",
                (command.resource, command.sequence, now),
            )
            database.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (key)"
                " DO UPDATE SET accepted_at = excluded.accepted_at",
                (
                    command.key,
                    command.resource,
                    command.job,
                    command.step,
                    command.direction,
                    command.attempt,
                    now,
                ),
            )
            return Verdict.WORK, None

    def may_run(self, command: Command) -> Failure | None:
        """The same rules again, when a command's turn has come: the reason why it may no longer act, or None."""
        with self._lock:
            return self._refusal(self._database, command)

    def finish(self, answer: Answer) -> None:
        """Keep the answer of a key that was accepted."""
        with self._lock:
            self._database.execute(
                "UPDATE keys SET answer = ? WHERE key = ?", (json.dumps(answer.to_document()), answer.key)
            )

    def want(self, section: str, number: int, body: Document) -> bool:
        """Keep a section's newest desired state. False when a newer one, or this very one, is known already."""
        with self._lock:
            return bool(
                self._database.execute(
                    "INSERT INTO sections VALUES (?, ?, ?, 0, '') ON CONFLICT (section)"
                    " DO UPDATE SET number = excluded.number, body = excluded.body"
                    " WHERE excluded.number > sections.number",
                    (section, number, json.dumps(body)),
                ).rowcount
            )

    def hold(self, section: str, number: int, boot_id: str) -> None:
        """Remember that the machine converged to `number` since it was booted as `boot_id`."""
        with self._lock:
            self._database.execute(
                "UPDATE sections SET held = ?, boot_id = ? WHERE section = ?", (number, boot_id, section)
            )

    def sections(self, boot_id: str) -> list[StoredSection]:
        """All sections; what was held before the machine was restarted is held no more."""
        with self._lock:
            rows = self._database.execute("SELECT section, number, body, held, boot_id FROM sections").fetchall()
        return [
            StoredSection(name, number, json.loads(body), held if booted == boot_id else 0)
            for name, number, body, held, booted in rows
        ]

    def use_nonce(self, nonce: str, exp: float) -> bool:
        """Spend a ticket's nonce; False when it was spent before. Remembered until `exp`, across restarts."""
        with self._lock:
            self._database.execute("DELETE FROM nonces WHERE exp < ?", (time.time() - 60,))
            return bool(self._database.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?)", (nonce, exp)).rowcount)

    def prune(self, before: float | None = None) -> None:
        """Forget what was accepted before a moment (seven days ago): every message that old has expired."""
        moment = time.time() - KEEP_S if before is None else before
        with self._transaction() as database:
            database.execute("DELETE FROM keys WHERE accepted_at < ?", (moment,))
            database.execute("DELETE FROM resources WHERE touched_at < ?", (moment,))

    def _refusal(self, database: sqlite3.Connection, command: Command) -> Failure | None:
        newest = database.execute("SELECT sequence FROM resources WHERE resource = ?", (command.resource,)).fetchone()
        if newest is not None and command.sequence < newest[0]:
            return Failure("failed", "refused_late", "A newer job has worked on this resource since.")
        rows = database.execute(
            "SELECT direction, max(attempt) FROM keys WHERE job = ? AND step = ? GROUP BY direction",
            (command.job, command.step),
        ).fetchall()
        attempts: dict[str, int] = dict(rows)
        if command.direction == "run" and "undo" in attempts:
            return Failure("failed", "refused_undone", "This step has been taken back already.")
        if command.attempt < attempts.get(command.direction, 0):
            return Failure("failed", "refused_late", "A later attempt at this step has been taken already.")
        return None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

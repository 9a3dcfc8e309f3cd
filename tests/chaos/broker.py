"""Redis in memory: keys with a time to live, users, and the queues of Celery's messages, by the clock of the case."""

import copy
import fnmatch
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

LONG_UP_S = 3600.0


@dataclass(frozen=True)
class Letter:
    """A Celery message on its way; `due_at` is when a worker may have it."""

    task: str
    kwargs: dict[str, Any]
    queue: str
    due_at: float
    tries: int = 0


@dataclass
class Redis:
    """The part of redis-py that control and agents use. `answer` is given a query when somebody waits for it."""

    answer: Callable[[Letter], None] = lambda letter: None
    letters: list[Letter] = field(default_factory=list)
    users: dict[str, set[str]] = field(default_factory=dict)
    run: int = 1
    started_at: float = field(default_factory=lambda: time.time() - LONG_UP_S)
    _kept: dict[str, tuple[Any, float | None]] = field(default_factory=dict)

    def save(self) -> tuple[Any, ...]:
        users = {name: set(hashes) for name, hashes in self.users.items()}
        return list(self.letters), users, self.run, self.started_at, copy.deepcopy(self._kept)

    def restore(self, saved: tuple[Any, ...]) -> None:
        letters, users, self.run, self.started_at, kept = saved
        self.letters, self._kept = list(letters), copy.deepcopy(kept)
        self.users = {name: set(hashes) for name, hashes in users.items()}

    def empty(self) -> None:
        """FLUSHALL: every key and every message on its way is gone; users stay."""
        self.letters.clear()
        self._kept.clear()

    def restart(self) -> None:
        """A new run without the data of the last one, and without its users."""
        self.empty()
        self.users.clear()
        self.run, self.started_at = self.run + 1, time.time()

    # messages

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        *,
        queue: Any = None,
        countdown: float | None = None,
        **_: Any,
    ) -> None:
        """In the place of `Celery.send_task`; what travels is JSON."""
        document = json.loads(json.dumps(kwargs or {}))
        assert not args, f"{name} is sent with positional arguments"
        place = str(getattr(queue, "name", queue) or "control")
        self.letters.append(Letter(name, document, place, time.time() + (countdown or 0.0)))

    # keys

    def set(self, name: str, value: Any, *, ex: float | None = None, px: float | None = None, nx: bool = False) -> bool:
        if nx and self.get(name) is not None:
            return False
        lives_s = ex if ex is not None else px / 1000 if px is not None else None
        self._kept[name] = (str(value), lives_s and time.time() + lives_s)
        return True

    def get(self, name: str) -> Any:
        value, until = self._kept.get(name, (None, None))
        if until is not None and until <= time.time():
            del self._kept[name]
            return None
        return value

    def getex(self, name: str, *, ex: float) -> Any:
        if (value := self.get(name)) is not None:
            self.set(name, value, ex=ex)
        return value

    def mget(self, names: list[str]) -> list[Any]:
        return [self.get(name) for name in names]

    def delete(self, *names: str) -> int:
        return sum(self._kept.pop(name, None) is not None for name in names)

    def exists(self, name: str) -> bool:
        return self.get(name) is not None

    def pttl(self, name: str) -> int:
        if self.get(name) is None:
            return -2
        until = self._kept[name][1]
        return -1 if until is None else int(1000 * (until - time.time()))

    def keys(self, match: str = "*") -> list[str]:
        return [name for name in list(self._kept) if self.get(name) is not None and fnmatch.fnmatchcase(name, match)]

    def scan_iter(self, match: str = "*", count: int = 0) -> Iterator[str]:
        yield from self.keys(match)

    def expire(self, name: str, lives_s: float) -> None:
        if self.get(name) is not None:
            self._kept[name] = (self._kept[name][0], time.time() + lives_s)

    def incr(self, name: str) -> int:
        value, until = self._kept.get(name, ("0", None))
        self._kept[name] = (str(int(value) + 1), until)
        return int(value) + 1

    def _table(self, name: str) -> dict[str, Any]:
        """A hash, or a sorted set as its members' scores."""
        if self.get(name) is None:
            self._kept[name] = ({}, None)
        table: dict[str, Any] = self._kept[name][0]
        return table

    def hset(self, name: str, *, mapping: dict[str, Any]) -> None:
        self._table(name).update({key: str(value) for key, value in mapping.items()})

    def hsetnx(self, name: str, key: str, value: Any) -> None:
        self._table(name).setdefault(key, str(value))

    def hget(self, name: str, key: str) -> Any:
        return (self.get(name) or {}).get(key)

    def hgetall(self, name: str) -> dict[str, str]:
        return dict(self.get(name) or {})

    def hincrby(self, name: str, key: str, by: int) -> int:
        table = self._table(name)
        table[key] = str(int(table.get(key, 0)) + by)
        return int(table[key])

    def zadd(self, name: str, members: dict[str, float]) -> None:
        self._table(name).update(members)

    def zrem(self, name: str, *members: str) -> None:
        for member in members:
            self._table(name).pop(member, None)

    def zrange(self, name: str, first: int, last: int) -> list[str]:
        table = self.get(name) or {}
        assert (first, last) == (0, -1)
        return sorted(table, key=lambda member: (table[member], member))

    def memory_usage(self, name: str) -> int:
        return 0  # nobody floods here

    def client_list(self) -> list[dict[str, str]]:
        return []

    def time(self) -> tuple[int, int]:
        now = time.time()
        return int(now), int(now % 1 * 1e6)

    def info(self, section: str = "") -> dict[str, Any]:
        return {"uptime_in_seconds": time.time() - self.started_at, "run_id": f"run-{self.run}"}

    def pipeline(self, transaction: bool = True) -> "Pipeline":
        return Pipeline(self)

    def blpop(self, names: list[str], timeout: float) -> tuple[str, str] | None:
        """Whoever waits for an answer has it at once, or when the time-out is over."""
        (name,) = names
        asked = [letter for letter in self.letters if letter.task == "agent.query"]
        for letter in asked:
            if name == f"mica:answer:{letter.kwargs['document']['id']}":
                self.letters.remove(letter)
                self.answer(letter)
        said = self.get(name)
        return (name, said) if said is not None else None

    def execute_command(self, *words: Any) -> Any:
        match words:
            case ("ACL", "SETUSER", user, *rules):
                self.users[user] = {rule[1:] for rule in rules if rule.startswith("#")}
            case ("ACL", "DELUSER", user):
                self.users.pop(user, None)
            case ("ACL", "USERS"):
                return list(self.users)
            case ("ACL", "SAVE"):
                return None
            case _:
                raise AssertionError(f"not known to the Redis of these tests: {words}")
        return None


class Pipeline:
    """Commands kept until they are executed."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._calls = redis, list[tuple[str, tuple[Any, ...], dict[str, Any]]]()

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.clear()

    def __getattr__(self, name: str) -> Any:
        def later(*args: Any, **kwargs: Any) -> "Pipeline":
            self._calls.append((name, args, kwargs))
            return self

        return later

    def execute(self) -> list[Any]:
        calls, self._calls = self._calls, []
        return [getattr(self._redis, name)(*args, **kwargs) for name, args, kwargs in calls]

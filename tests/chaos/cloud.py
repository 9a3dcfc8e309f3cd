"""A whole cloud in memory on one thread: control's own tasks, messages, machines, and a clock that is told to go on."""

import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.db import InterfaceError, OperationalError

from cloud.agent import main
from cloud.celery import app
from cloud.common import signing
from cloud.common.errors import Problem
from cloud.infra.models import Agent, DesiredSection
from cloud.jobs import agents
from cloud.jobs.models import CleanUp, Job
from storage.agent import handlers
from storage.drivers.fake import WORLDS
from tests.chaos.broker import Letter, Redis
from tests.chaos.enrolling import Boxes
from tests.chaos.fleet import Fleet
from tests.chaos.machines import Node
from tests.chaos.vault import Killed, Vault

log = logging.getLogger(__name__)

LONGEST_HOP_S = 1800.0
# Each minute agents go through their sections and tell what runs.
DRIFT_S = 60.0
SWEEPS = [
    entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values() if entry["schedule"] <= timedelta(minutes=1)
]
TRIES = 10


class Restless(AssertionError):
    """Something is never done."""


@dataclass
class Saved:
    """A moment of the whole cloud."""

    rows: tuple[str, float]
    redis: tuple[Any, ...]
    machines: tuple[Any, ...]
    random: Any
    boxes: Any


@dataclass
class Cloud:
    """`post(letter)` sees each message as it is taken from Redis: True lets it through, False loses it."""

    vault: Vault
    redis: Redis
    machines: Fleet
    random: Random
    boxes: Boxes
    post: Callable[[Letter], bool] | None = None
    after_task: Callable[[], None] = lambda: None
    crashes: list[BaseException] = field(default_factory=list)

    @classmethod
    def begin(cls, patch: pytest.MonkeyPatch, folder: Path) -> "Cloud":
        app.autodiscover_tasks(force=True)
        assert main.load_handlers() == {}
        vault, redis = Vault(), Redis()
        vault.open(patch)
        WORLDS.clear()
        random = Random(1)
        # Keys come out the same in every run, so that what is found is found again.
        patch.setattr(uuid, "os", SimpleNamespace(urandom=random.randbytes))
        patch.setattr(app, "send_task", redis.send_task)
        patch.setattr(agents, "redis", lambda: redis)
        patch.setattr(handlers, "time", SimpleNamespace(monotonic=time.time))
        fleet = Fleet(patch, folder, redis)
        made = cls(vault, redis, fleet, random, Boxes(patch, fleet))
        redis.answer = made._answer_query
        return made

    def save(self) -> Saved:
        return Saved(
            self.vault.save(), self.redis.save(), self.machines.save(), self.random.getstate(), self.boxes.save()
        )

    def restore(self, saved: Saved) -> None:
        self.post, self.after_task = None, lambda: None
        self.crashes.clear()
        self.vault.restore(saved.rows)
        self.redis.restore(saved.redis)
        self.machines.restore(saved.machines)
        self.random.setstate(saved.random)
        self.boxes.restore(saved.boxes)

    # one thing after another

    def step(self) -> bool:
        """One message is taken, or one piece of work done by a machine; False when there is nothing now."""
        for letter in self.redis.letters:
            if letter.due_at <= time.time() and self._can_be_had(letter):
                self.redis.letters.remove(letter)
                if self.post is None or self.post(letter):
                    self.deliver(letter)
                return True
        return any(node.work() for node in self.machines.nodes.values())

    def deliver(self, letter: Letter) -> None:
        if node := self._addressee(letter):
            node.take(letter)
        else:
            self.run_task(letter)

    def _can_be_had(self, letter: Letter) -> bool:
        node = self._addressee(letter)
        return node is None or (node.is_up and not node.is_away)

    def _addressee(self, letter: Letter) -> Node | None:
        kind, _, rest = letter.queue.partition(".")
        return self.machines.node(rest.removesuffix(".bulk")) if kind == "agent" else None

    def _answer_query(self, letter: Letter) -> None:
        if self._can_be_had(letter):
            self.deliver(letter)

    def run_task(self, letter: Letter) -> None:
        """A worker does it; should it die, the next one finds what it left."""
        task = app.tasks[letter.task]
        self.vault.is_control = True
        try:
            getattr(task, "_orig_run", task.run)(**letter.kwargs)
        except Killed:
            log.info("killed in %s", letter.task)
        except Problem:
            if hasattr(task, "_orig_run") and letter.tries < TRIES:
                self.redis.letters.append(
                    Letter(letter.task, letter.kwargs, letter.queue, time.time() + 2, letter.tries + 1)
                )
        except (OperationalError, InterfaceError) as error:
            log.info("%s: %s", letter.task, error)
        except Exception as error:
            self.crashes.append(error)
            log.exception("%s crashed", letter.task)
        finally:
            self.vault.is_control = False
        if self.vault.is_dead or self.vault.is_down:
            self.vault.revive()
        self.after_task()

    def drain(self) -> None:
        """Everything that can happen now."""
        for _ in range(20000):
            if not self.step():
                return
        raise Restless(f"messages without end: {self.redis.letters[:5]}")

    def hop(self, seconds: float) -> None:
        """Time goes on; machines tell that they live, control sweeps."""
        self.vault.advance(seconds)
        for node in self.machines.nodes.values():
            node.beat()
            is_drift = time.time() - node.looked_at >= DRIFT_S
            if node.is_up and (is_drift or node.sections.errors()):
                node.sections.work(is_drift=True)
            if is_drift:
                node.looked_at = time.time()
                node.tell_inventory()
        for task in SWEEPS:
            self.run_task(Letter(task, {}, "control", time.time()))

    # until it is over

    def run(self) -> None:
        """What `World.settle` asks for: let all be done that can be done, whatever time it takes."""
        self.settle()

    def rush(self) -> None:
        """Everything that happens within moments, without a sweep."""
        while True:
            self.drain()
            due = [letter.due_at for letter in self.redis.letters if self._can_be_had(letter)]
            if not due or min(due) > time.time() + 1:
                return
            self.vault.advance(max(0.0, min(due) - time.time()) + 0.001)

    def settle(self, most_s: float = 90000.0) -> None:
        pause, began = 2.0, time.time()
        for agent in Agent.objects.exclude(hello_at=None):
            self._meet(agent)
        while True:
            self.rush()
            if self.is_quiet() and not any(self._can_be_had(letter) for letter in self.redis.letters):
                return
            if time.time() > began + most_s:
                raise Restless(self.unrest())
            self.hop(pause)
            pause = min(pause * 1.5, LONGEST_HOP_S if time.time() > began + 600 else 20.0)

    def _meet(self, agent: Agent) -> None:
        """The machine of an agent's row: of one that nobody enrolled, access is made up."""
        node = self.machines.node(agent)
        if not agent.redis_password_hash:
            node.hashed = signing.password_hash(node.uuid)
            Agent.objects.filter(pk=agent.pk).update(redis_password_hash=node.hashed)

    def is_quiet(self) -> bool:
        """No job is at work, none owes a clean-up, and every machine that is there holds what it should."""
        behind = DesiredSection.objects.behind().filter(agent__connection="connected")
        owing = CleanUp.objects.owed()
        return not (Job.objects.live().exists() or owing.exists() or behind.exists())

    def unrest(self) -> str:
        rows = Job.objects.live().values_list("workflow", "state", "cursor", "attempt", "waiting", "lease_until")
        behind = DesiredSection.objects.behind().values_list("agent__name", "section", "wanted", "held", "failure")
        owed = list(CleanUp.objects.owed().values_list("job__workflow", "name", "agent", "error"))
        return f"never done: {list(rows)}, owed: {owed}, behind: {list(behind)}, messages: {self.redis.letters[:5]}"

    def heal(self) -> None:
        """Every machine is there again, nothing more is broken; all settle, and what was seen counts."""
        self.post = None
        self.machines.trouble = None
        self.vault.blow = self.vault.at_statement = None
        self.come_back()
        self.settle()
        # What was seen, and then what follows from it.
        for seconds in (DRIFT_S, handlers.TELL_AGAIN_S):
            self.hop(seconds + 1)
            self.settle()
        assert not self.crashes, self.crashes

    def come_back(self) -> None:
        """Machines that were cut off, and agents that do not run."""
        for node in self.machines.nodes.values():
            if node.is_away:
                node.is_away = False
                node.greet()
            if not node.is_up:
                node.start()

    def greet_again(self) -> None:
        """Every agent connects once more."""
        for node in self.machines.nodes.values():
            node.greet()
        self.heal()

    # what befalls it

    def empty_redis(self) -> None:
        self.redis.empty()
        for node in self.machines.nodes.values():
            node.beat()

    def restart_redis(self) -> None:
        """Everybody connects again, and says so."""
        self.redis.restart()
        for node in self.machines.nodes.values():
            if node.is_up and not node.is_away:
                node.greet()


def document_of(letter: Letter) -> Any:
    return letter.kwargs.get("document", {})


def is_command(letter: Letter, direction: str, position: int) -> bool:
    """Whether it asks a machine for this step."""
    document = document_of(letter)
    is_asked = letter.task == "agent.command" and document["direction"] == direction
    return bool(is_asked and document["step"] == str(position))


def words(value: Any) -> str:
    return json.dumps(value, default=str, indent=1, sort_keys=True)

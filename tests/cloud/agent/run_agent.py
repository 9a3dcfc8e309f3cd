"""An agent with handlers made for tests: `python run_agent.py CONFIG STATE RUN`; its world is a folder, STATE/world."""

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cloud.agent import config
from cloud.agent.agent import Agent
from cloud.agent.registry import Sample, command, fact, query, sampler, section
from cloud.common.driver import Rejected
from cloud.common.wire import Message


@dataclass(frozen=True)
class Mark(Message):
    kind: ClassVar[str] = "test.mark"
    name: str
    seconds: float = 0


@dataclass(frozen=True)
class Marks(Message):
    kind: ClassVar[str] = "test.marks"
    names: list[str]


@dataclass(frozen=True)
class Empty(Message):
    kind: ClassVar[str] = "test.empty"


@dataclass(frozen=True)
class Long(Mark):
    kind: ClassVar[str] = "test.long"


def mark(message, call):
    world = call.machine.state_dir / "world"
    world.mkdir(exist_ok=True)
    with (world / message.name).open("a") as file:
        file.write("began\n")
    end = time.monotonic() + message.seconds
    while time.monotonic() < end:
        call.progress(message.seconds - (end - time.monotonic()), message.seconds, "marking")
        call.check_aborted()
        time.sleep(0.05)
    with (world / message.name).open("a") as file:
        file.write("ended\n")
    return Marks([message.name])


command(Mark)(mark)
command(Long, bulk=True)(mark)


@query(Marks)
def marks(message, machine):
    if message.names:
        raise Rejected("no_names", "Names are not asked for.")
    return Marks(sorted(path.name for path in (machine.state_dir / "world").glob("*")))


@section("networks")
def networks(body, machine):
    machine.publish("test.networks", body)


@fact
def facts(machine):
    return {"versions": {"test": "1"}, "is_test": True}


@sampler
def sample(machine):
    return [Sample("mica_instance", {"instance": "i-1", "host": machine.uuid}, {"cpu_used_percent": 1.5})]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(threadName)s %(name)s %(message)s")
    directory, state, run = (Path(argument) for argument in sys.argv[1:])
    Agent(config.load(directory), {}, state_dir=state, run_dir=run).run()

"""The control processes of an instance, as data."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.control import metrics, postgres, redis
from launcher.instance import Instance
from launcher.lab.plan import MANAGEMENT, OUTSIDE, OUTSIDE_ADDRESS

STORES = ("postgres", "redis")
METRICS = ("victoria-metrics", "vmauth")
CONTROL = ("web", "worker", "worker-ssh", "beat")
# Runs only where hosts are simulated.
SIMULATOR = "simulator"
ALL = (*STORES, *METRICS, "outside-www", *CONTROL)
NO_GOSSIP = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass(frozen=True)
class Program:
    """A supervised process; `listens_on` (host:port) is bound by the supervisor and handed down as descriptor 0."""

    name: str
    command: Sequence[str | Path]
    directory: Path = Path("/")
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    stops_children_itself: bool = False
    listens_on: str = ""

    @property
    def command_line(self) -> str:
        return shlex.join(str(word) for word in self.command)


def of(instance: Instance) -> list[Program]:
    """Every control process; all but the outside web server live in the management namespace."""

    def managed(*words: str | Path) -> list[str | Path]:
        return ["ip", "netns", "exec", instance.namespace(MANAGEMENT.name), *words]

    def celery(*words: str) -> list[str | Path]:
        return managed(instance.python, "-m", "celery", "-A", "cloud.celery", *words)

    def worker(name: str, queues: str, threads: int) -> Program:
        words = ("worker", "--pool=threads", f"--concurrency={threads}", "-Q", queues, "-n", f"{name}@%h", *NO_GOSSIP)
        return Program(name, celery(*words, "--loglevel=INFO"), directory=instance.checkout)

    return [
        # PostgreSQL must see the signal first: a backend that dies of one makes it think of a crash.
        Program(
            "postgres",
            managed(*postgres.command(instance)),
            stop_signal="INT",
            stop_seconds=20,
            stops_children_itself=True,
        ),
        Program("redis", managed(*redis.command(instance)), stop_seconds=20),
        Program("victoria-metrics", managed(*metrics.store_command(instance)), stop_seconds=20),
        Program("vmauth", managed(*metrics.door_command(instance))),
        Program(
            "outside-www",
            [
                "ip",
                "netns",
                "exec",
                instance.namespace(OUTSIDE.name),
                "/usr/bin/python3",
                "-I",
                "-u",
                "-m",
                "http.server",
                "80",
                "--bind",
                OUTSIDE_ADDRESS,
                "--directory",
                outside_www(instance),
            ],
        ),
        Program(
            "web",
            managed(instance.python, "-m", "cloud.serve"),
            directory=instance.checkout,
            listens_on=f"127.0.0.1:{instance.port}",
        ),
        worker("worker", "control,control.answers", 8),
        worker("worker-ssh", "control.ssh", 2),
        Program(
            "beat",
            celery("beat", "--schedule", str(instance.data / "beat"), "--loglevel=INFO", "--pidfile="),
            directory=instance.checkout,
        ),
        Program(
            SIMULATOR,
            managed(
                instance.python, "-m", "cloud.agent.main", "simulate", "--directory", simulator_directory(instance)
            ),
            directory=instance.checkout,
        ),
    ]


def simulator_directory(instance: Instance) -> Path:
    """Where control writes what the simulator should be; there while anything is simulated."""
    return instance.data / "simulator"


def outside_www(instance: Instance) -> Path:
    """What the web server of the outside world serves."""
    return instance.data / "lab/outside/www"

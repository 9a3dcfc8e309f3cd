"""The agent process put together: one process, and a thread for each thing that must not wait for another."""

import dataclasses
import logging
import os
import signal
import threading
import time
from pathlib import Path

from cloud.agent import facts, registry, version
from cloud.agent.boot import boot_id
from cloud.agent.config import AgentConfig
from cloud.agent.convergence import Convergence
from cloud.agent.door import Door
from cloud.agent.heartbeat import Heartbeat
from cloud.agent.host_sampler import HostSampler
from cloud.agent.intake import Intake, Questions
from cloud.agent.journal import Journal
from cloud.agent.link import RedisLink
from cloud.agent.outbox import Outbox
from cloud.agent.registry import Machine
from cloud.agent.sampling import MetricStore, Sampling
from cloud.agent.work import Workshop
from cloud.common.wire import Answer, Document, Held, Hello

log = logging.getLogger(__name__)

GRACE_S = 10.0
PRUNE_EVERY_S = 3600.0


class Agent:
    """One agent. `left_out` are the handler modules that this machine cannot load, with the reason."""

    def __init__(self, config: AgentConfig, left_out: dict[str, str], *, state_dir: Path, run_dir: Path) -> None:
        self._config, self._left_out = config, left_out
        self._boot_id = boot_id(run_dir)
        self._journal = Journal(state_dir / "journal.sqlite3", config.uuid)
        self._intake = Intake(
            config,
            command=lambda command, is_bulk: self._workshop.take(command, is_bulk=is_bulk),
            desired=lambda desired: self._convergence.offer(desired),
            query=lambda query: self._questions.take(query),
            connected=self._greet,
        )
        self._outbox = Outbox(self._intake.send)
        self._link = RedisLink(config, self._outbox)
        self.machine = Machine(config.uuid, config.kind, config, state_dir, self._link)
        self._workshop = Workshop(self.machine, self._journal, self._answer, self._link.now, self._link.forget)
        self._convergence = Convergence(self.machine, self._journal, self._boot_id, self._tell_held)
        self._questions = Questions(self.machine, self._link.answer_query, self._link.now)
        self._heartbeat = Heartbeat(self._link, self._describe)
        self._door = Door(self.machine, self._journal, self._link.now)
        registry.sampler(HostSampler().sample)
        push = MetricStore(config).push if config.metrics_url else None
        self._sampling = Sampling(self.machine, self._link.show_sample, push)
        self._greeting = threading.Event()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; ends the process. Must be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._intake.stop())
        log.info("agent %s (%s) %s, boot %s", self._config.uuid, self._config.kind, version.current(), self._boot_id)
        self._outbox.start()
        self._begin_domains()
        self._convergence.start()
        self._heartbeat.start()
        self._door.start()
        self._sampling.start()
        for work in (self._keep_greeting, self._keep_pruning):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()
        self._intake.run()
        self._end()

    def _begin_domains(self) -> None:
        for name, begin in registry.STARTS.items():
            try:
                begin(self.machine)
            except Exception as error:
                log.exception("%s did not start", name)
                self._left_out[name] = f"it did not start: {type(error).__name__}: {error}"

    def _end(self) -> None:
        """Let short work end, send what is to be said, and go at once: handlers' threads are not waited for."""
        log.info("stopping")
        deadline = time.monotonic() + GRACE_S
        self.machine.is_stopping.set()
        self._convergence.stop()
        self._sampling.stop()
        self._questions.stop()
        self._workshop.stop(GRACE_S - 2)
        self._outbox.stop(max(1.0, deadline - time.monotonic()))
        self._heartbeat.stop()
        try:
            self._door.stop()
        except Exception:
            log.exception("the stream door did not close")
        self._journal.close()
        log.info("stopped")
        logging.shutdown()
        os._exit(0)

    def _answer(self, answer: Answer) -> None:
        self._outbox.put("jobs.answer", answer.to_document())

    def _tell_held(self, held: Held) -> None:
        told = dataclasses.replace(held, at=self._link.said_at())
        self._outbox.put("infra.desired_held", told.to_document())

    def _describe(self) -> Document:
        return {
            "boot_id": self._boot_id,
            "version": version.current(),
            "in_work": self._workshop.in_work(),
            "held": self._convergence.held(),
            "failures": self._convergence.failures(),
            "sections_error": self._convergence.errors(),
        }

    def _greet(self) -> None:
        self._greeting.set()

    def _keep_greeting(self) -> None:
        """Say hello at each connection, with fresh facts: Redis may have forgotten, and control with it."""
        while True:
            self._greeting.wait()
            self._greeting.clear()
            told = facts.gather(self.machine)
            told |= {"boot_id": self._boot_id, "clock_skew_s": round(-self._link.skew_s, 3), "left_out": self._left_out}
            hello = Hello(
                agent=self._config.uuid,
                version=version.current(),
                boot_id=self._boot_id,
                facts=told,
                held=self._convergence.held(),
                failures=self._convergence.failures(),
                at=self._link.said_at(),
            )
            self._outbox.put("infra.agent_hello", hello.to_document())
            log.info("connected to control")

    def _keep_pruning(self) -> None:
        while True:
            self._journal.prune()
            if self.machine.is_stopping.wait(PRUNE_EVERY_S):
                return

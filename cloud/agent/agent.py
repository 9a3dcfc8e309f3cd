"""The agent process: one agent with a broker, a heartbeat, a stream door and samples of its own."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

from cloud.agent import certificate, registry, upgrade, version
from cloud.agent.boot import boot_id
from cloud.agent.certificate import OwnCertificate
from cloud.agent.config import AgentConfig
from cloud.agent.core import Core
from cloud.agent.door import Door
from cloud.agent.heartbeat import Heartbeat
from cloud.agent.host_sampler import HostSampler
from cloud.agent.intake import Intake
from cloud.agent.journal import Journal
from cloud.agent.link import RedisLink
from cloud.agent.outbox import Outbox
from cloud.agent.registry import Machine
from cloud.agent.sampling import MetricStore, Sampling
from cloud.agent.upgrade import Upgrade, WentBack
from cloud.common.wire import Document
from cloud.infra.messages import CERTIFICATE_TOPIC, CertificateWanted

log = logging.getLogger(__name__)

GRACE_S = 10.0


class Agent:
    """One agent and its process. `left_out` are the handler modules that this machine cannot load, with the reason."""

    def __init__(self, config: AgentConfig, left_out: dict[str, str], *, state_dir: Path, run_dir: Path) -> None:
        self._config = config
        self._is_restarting = False
        self._upgrade = Upgrade(state_dir, config.directory, restart=self._restart)
        boot = boot_id(run_dir)
        self._journal = Journal(state_dir / "journal.sqlite3", config.uuid, boot)
        self._intake = Intake(config, receive=self._receive, connected=self._connected, sign=self._sign)
        self._outbox = Outbox(self._intake.send)
        self._link = RedisLink(config, self._outbox)
        self.machine = Machine(config.uuid, config.kind, config, state_dir, self._link)
        self.machine.resources[upgrade.RESOURCE] = self._upgrade
        self._certificate = OwnCertificate(config, self._want_certificate, self._link.now)
        self.machine.resources[certificate.RESOURCE] = self._certificate
        self.core = Core(self.machine, self._journal, self._link, self._outbox.put, boot_id=boot, left_out=left_out)
        self._heartbeat = Heartbeat(self._link, self.core.describe)
        self._door = Door(self.machine, self._journal, self._link.now)
        registry.sampler(HostSampler().sample)
        push = MetricStore(config).push if config.metrics_url else None
        self._sampling = Sampling(self.machine, self._link.show_sample, push)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; ends the process. Must be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._intake.stop())
        try:
            self._upgrade.begin()
        except WentBack:
            self._begin_anew()
        kind, boot = self._config.kind, self.core.boot_id
        log.info("agent %s (%s) %s, boot %s", self._config.uuid, kind, version.current(), boot)
        self._outbox.start()
        self.core.start()
        self._heartbeat.start()
        self._door.start()
        self._sampling.start()
        self._certificate.start()
        self._intake.run()
        self._end()

    def _end(self) -> None:
        """Let short work end, send what is to be said, and go at once: handlers' threads are not waited for."""
        log.info("stopping")
        deadline = time.monotonic() + GRACE_S
        self._sampling.stop()
        self._certificate.stop()
        self.core.stop(GRACE_S - 2)
        self._outbox.stop(max(1.0, deadline - time.monotonic()))
        # Who is back within seconds need not be missed: its last sign of life stands until it has run out.
        self._heartbeat.stop(is_parting=not self._is_restarting)
        try:
            self._door.stop()
        except Exception:
            log.exception("the stream door did not close")
        self._journal.close()
        log.info("stopped")
        if self._is_restarting:
            self._begin_anew()
        logging.shutdown()
        os._exit(0)

    def _restart(self) -> None:
        """End in order, and begin anew as whatever release lies in place then. Safe in any thread."""
        self._is_restarting = True
        self._intake.stop()

    @staticmethod
    def _begin_anew() -> None:
        """The same process number: service managers see nothing of it."""
        logging.shutdown()
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the words this process was started with

    def _sign(self, task: str, document: Document) -> Document:
        return self._link.sign(task, document)

    def _want_certificate(self, request: str, serial: str) -> None:
        self.machine.publish(CERTIFICATE_TOPIC, CertificateWanted(request, serial).to_document())

    def _receive(self, task: str, document: Document, is_bulk: bool) -> None:
        self.core.receive(task, document, is_bulk)

    def _connected(self) -> None:
        log.info("connected to control")
        self.core.greet()

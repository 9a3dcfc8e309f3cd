"""The process `simulator`: any number of agents at once, as its directory says at each moment."""

import contextlib
import json
import logging
import os
import pickle
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import redis

from cloud.agent import jitter, wording
from cloud.agent.config import AgentConfig, ConfigError
from cloud.agent.heartbeat import EVERY_S as BEAT_EVERY_S
from cloud.agent.intake import ANSWER_QUEUE
from cloud.agent.link import ALIVE_TTL_S, SAMPLE_TTL_S
from cloud.agent.outbox import Outbox
from cloud.agent.registry import Sample
from cloud.agent.sampling import EVERY_S as SAMPLE_EVERY_S
from cloud.agent.sampling import MetricStore, last_sample, lines
from cloud.agent.simulator.config import ALL, CONFIG, DISKS, FAULTS, Declared, SimulatorConfig, load, load_faults
from cloud.agent.simulator.holdings import answer as answer_holdings
from cloud.agent.simulator.machines import Shared, SimulatedMachine
from cloud.agent.simulator.wires import Lines, connect, enclosed
from cloud.common import signing
from cloud.common.wire import Document

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
SLICE_S = 0.25
KEEP_EVERY_S = 20.0
GREETINGS_A_SECOND = 25.0
OUTBOX_ROOM = 500_000


class Simulator:
    """Holds the machines that `directory`/simulator.json names, until it is told to stop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stopping = threading.Event()
        self._machines: dict[str, SimulatedMachine] = {}
        self._shared: Shared | None = None
        self._lines: Lines | None = None
        self._seen: dict[str, float] = {}
        self._kept = b""
        self._metrics: MetricStore | None = None

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; ends the process. Must be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._stopping.set())
        for work in (self._keep_beating, self._keep_sampling, self._keep_disks):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(LOOK_EVERY_S)
        self._end()

    def look(self) -> None:
        """Follow what the directory says now."""
        try:
            if self._is_changed(CONFIG):
                self._follow(load(self._directory))
                self._seen.pop(FAULTS, None)
            if self._shared is not None and self._is_changed(FAULTS):
                self._afflict(load_faults(self._directory))
        except ConfigError as error:
            log.warning("%s", error)
        answer_holdings(self._directory, self._machines)

    def neighbour(self, agent: str) -> SimulatedMachine | None:
        return self._machines.get(agent)

    def _is_changed(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            moment = (self._directory / name).stat().st_mtime_ns
            if self._seen.get(name) != moment:
                self._seen[name] = moment
                return True
        return False

    def _follow(self, config: SimulatorConfig) -> None:
        if self._shared is None:
            self._begin(config)
        shared = self._shared
        assert shared is not None
        assert self._lines is not None
        if config.redis_password != shared.config.redis_password or config.redis_url != shared.config.redis_url:
            log.info("control gave new access: starting anew")
            self._stopping.set()  # the supervisor starts another
            return
        wanted = {about.uuid: about for about in config.machines}
        for gone in self._machines.keys() - wanted.keys():
            self._machines.pop(gone).stop()
        disks = self._stored() if not self._machines else {}
        new = [about for key, about in wanted.items() if key not in self._machines]
        for about in new:
            self._machines[about.uuid] = SimulatedMachine(about, shared, disks.get(about.uuid, {}))
        for about in new:
            self._machines[about.uuid].start()
        self._lines.serve(list(self._machines))
        log.info("%d machines, %d of them new", len(self._machines), len(new))

    def _begin(self, config: SimulatorConfig) -> None:
        client = connect(config)
        self._outbox = outbox = Outbox(self._send, room=OUTBOX_ROOM)
        outbox.start()
        self._shared = Shared(config, client, outbox, self._directory, self)
        self._lines = Lines(client, self._take, self._connected)
        if config.metrics_url:
            told = AgentConfig("", metrics_url=config.metrics_url, metrics_token=config.metrics_token)
            self._metrics = MetricStore(AgentConfig(**{**vars(told), "directory": self._directory}))

    def _send(self, task: str, document: Document) -> None:
        assert self._shared is not None
        hashed = signing.password_hash(self._shared.config.redis_password)
        at = time.time() + (self._shared.clock.skew_s or 0.0)
        signature = signing.sign(hashed, task, document, agent=str(document["agent"]), at=at)
        self._shared.redis.lpush(ANSWER_QUEUE, enclosed(task, document=document, signature=signature))

    def _take(self, agent: str, task: str, document: Document, is_bulk: bool) -> None:
        if machine := self._machines.get(agent):
            machine.receive(task, document, is_bulk)

    def _connected(self, agents: list[str]) -> None:
        for agent in agents:
            if machine := self._machines.get(agent):
                # A thousand real agents would not come back in step either.
                machine.greet(jitter.between(0.0, len(self._machines) / GREETINGS_A_SECOND))

    def _afflict(self, declared: dict[str, Declared]) -> None:
        by_all = declared.get(ALL, Declared())
        for machine in list(self._machines.values()):
            machine.suffer(declared.get(machine.about.name, by_all))

    def _keep_beating(self) -> None:
        """All signs of life, spread over their interval, each slice of time in one round trip."""
        is_heard = True
        for part in self._slices(0.95 * BEAT_EVERY_S):
            shared = self._shared
            if shared is None:
                continue
            try:
                shared.clock.read(shared.redis)
                with shared.redis.pipeline(transaction=False) as pipeline:
                    for machine in part:
                        if alive := machine.alive():
                            pipeline.set(*alive, ex=ALIVE_TTL_S)
                    pipeline.execute()
                is_heard = True
            except redis.RedisError as error:
                if is_heard:
                    log.warning("no signs of life can be given: %s", error)
                is_heard = False

    def _keep_sampling(self) -> None:
        for part in self._slices(SAMPLE_EVERY_S):
            if self._shared is not None and part:
                self._sample(part, self._shared.redis)

    def _sample(self, part: list[SimulatedMachine], client: Any) -> None:
        at, batch = time.time(), list[Sample]()
        try:
            with client.pipeline(transaction=False) as pipeline:
                for machine in part:
                    if samples := machine.samples():
                        batch += samples
                        shown = json.dumps(wording.fit(last_sample(samples, at)))
                        pipeline.set(f"mica:agent:{machine.about.uuid}:sample", shown, ex=SAMPLE_TTL_S)
                pipeline.execute()
        except redis.RedisError as error:
            log.debug("samples cannot be shown: %s", error)
        if self._metrics is not None and batch:
            try:
                self._metrics.push(lines(batch, at))
            except Exception as error:
                log.debug("samples cannot be stored: %s", error)

    def _slices(self, every_s: float) -> Any:
        """Parts of the machines, each machine once in `every_s` seconds, until the end."""
        waiting: deque[SimulatedMachine] = deque()
        share = 0.0
        while not self._stopping.wait(SLICE_S):
            if not waiting:
                waiting.extend(self._machines.values())
                share = max(1.0, len(waiting) * SLICE_S / every_s)
                share += 0.999
            yield [waiting.popleft() for _ in range(min(int(share), len(waiting)))]

    def _keep_disks(self) -> None:
        while not self._stopping.wait(jitter.between(0.8 * KEEP_EVERY_S, KEEP_EVERY_S)):
            self._keep()

    def _keep(self) -> None:
        """Write the disks down when they changed: a simulator that is started anew has them again."""
        if not self._machines:
            return
        try:
            content = pickle.dumps({key: machine.disk for key, machine in list(self._machines.items())})
            if content != self._kept:
                partial = self._directory / f"{DISKS}.partial"
                partial.touch(mode=0o600)
                partial.write_bytes(content)
                partial.replace(self._directory / DISKS)
                self._kept = content
        except (OSError, RuntimeError, pickle.PicklingError) as error:
            log.warning("the disks cannot be kept: %s", error)

    def _stored(self) -> dict[str, dict[str, Any]]:
        try:
            # Our own file, in a directory that only root can write.
            found: dict[str, dict[str, Any]] = pickle.loads((self._directory / DISKS).read_bytes())  # noqa: S301
            return found
        except FileNotFoundError:
            return {}
        except Exception as error:
            log.warning("the disks are lost: %s", error)
            return {}

    def _end(self) -> None:
        """Say what is to be said and go at once; the machines are switched off, their disks stay."""
        log.info("stopping")
        self._keep()
        if self._lines is not None:
            self._lines.stop()
        for machine in self._machines.values():
            machine.stop()
        if self._shared is not None:
            self._outbox.stop(3.0)
            with contextlib.suppress(redis.RedisError):
                self._part(self._shared.redis)
        logging.shutdown()
        os._exit(0)

    def _part(self, client: Any) -> None:
        """Take the signs of life away: control need not wait for their time to run out."""
        with client.pipeline(transaction=False) as pipeline:
            for uuid in self._machines:
                pipeline.delete(f"mica:agent:{uuid}:alive")
            pipeline.execute()

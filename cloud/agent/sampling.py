"""Every ten seconds: all samplers, each in a thread of its own; to the metric store, and the last sample to Redis.

Lines are Influx line protocol (docs.influxdata.com/influxdb/v1/write_protocols). A store that is away costs at most the
oldest samples, never the agent.
"""

import http.client
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from urllib.parse import urlsplit

from cloud.agent import jitter
from cloud.agent.config import AgentConfig
from cloud.agent.registry import SAMPLERS, Machine, Sample
from cloud.common import tls
from cloud.common.wire import Document

log = logging.getLogger(__name__)

EVERY_S = 10.0
PATIENCE_S = 8.0
KEPT_BATCHES = 60
POST_TIMEOUT_S = 10.0

HOST_MEASUREMENTS = ("mica_host", "mica_image_server")
INSTANCE_MEASUREMENT = "mica_instance"


class Sampling:
    """Takes all samples on a steady beat; `show` is given the last sample's document, `push` a batch of lines."""

    def __init__(
        self, machine: Machine, show: Callable[[Document], None], push: Callable[[bytes], None] | None
    ) -> None:
        self._machine, self._show, self._push = machine, show, push
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(max(1, len(SAMPLERS)), thread_name_prefix="sampler")
        self._running: dict[str, Future[list[Sample]]] = {}
        self._batches: deque[bytes] = deque(maxlen=KEPT_BATCHES)
        self._filled = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._work, name="sampling", daemon=True).start()
        if self._push is not None:
            threading.Thread(target=self._send, name="metrics", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        self._filled.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self) -> None:
        # Agents start at the same moment after an outage: spread them over the interval, then keep the beat.
        due = time.monotonic() + jitter.between(0.0, 1.0)
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + EVERY_S, time.monotonic())
            try:
                self.once()
            except Exception:
                log.exception("sampling failed")

    def once(self) -> list[Sample]:
        """One round: a sampler that hangs is left alone until it is done, and the others go on."""
        started = {
            name: self._pool.submit(function, self._machine)
            for name, function in SAMPLERS.items()
            if name not in self._running or self._running[name].done()
        }
        self._running |= started
        wait(started.values(), timeout=PATIENCE_S)
        at, samples = time.time(), []
        for name, future in started.items():
            if not future.done():
                log.warning("sampler %s takes longer than %.0f s", name, PATIENCE_S)
            elif error := future.exception():
                log.warning("sampler %s failed: %s: %s", name, type(error).__name__, error)
            else:
                samples += future.result()
        self._show(last_sample(samples, at))
        if self._push is not None and (batch := lines(samples, at)):
            self._batches.append(batch)
            self._filled.set()
        return samples

    def _send(self) -> None:
        is_well = True
        while not self._stopping.is_set():
            self._filled.wait()
            self._filled.clear()
            while self._batches and not self._stopping.is_set():
                batch = self._batches[0]
                try:
                    assert self._push is not None
                    self._push(batch)
                except (OSError, http.client.HTTPException) as error:
                    if is_well:
                        log.warning("samples cannot be stored: %s", error)
                    is_well = False
                    break
                is_well = True
                if self._batches and self._batches[0] is batch:
                    self._batches.popleft()


class MetricStore:
    """POSTs lines to `<metrics_url>/write` with the agent's bearer token, over one kept-alive connection."""

    def __init__(self, config: AgentConfig) -> None:
        url = urlsplit(config.metrics_url)
        host, path = url.hostname or "", url.path.rstrip("/") + "/write"
        self._path = path
        self._headers = {"Content-Type": "text/plain"}
        if config.metrics_token:
            self._headers["Authorization"] = f"Bearer {config.metrics_token}"
        self._connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = tls.client_context(config.ca)
            self._connection = http.client.HTTPSConnection(host, url.port, timeout=POST_TIMEOUT_S, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, url.port, timeout=POST_TIMEOUT_S)

    def push(self, batch: bytes) -> None:
        """Raises OSError or HTTPException when it was not taken and may be tried again; what is refused is dropped."""
        try:
            self._connection.request("POST", self._path, batch, self._headers)
            answer = self._connection.getresponse()
            said = answer.read(1000)
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if answer.status in (400, 413, 422):
            log.error("the metric store refuses samples: %d %s", answer.status, said.decode(errors="replace"))
        elif answer.status >= 300:
            raise http.client.HTTPException(f"{answer.status} {answer.reason}")


def lines(samples: Iterable[Sample], at: float) -> bytes:
    """Influx lines with nanosecond time stamps; a sample without fields makes no line."""
    stamp = int(at * 1e9)
    made = []
    for sample in samples:
        # What is no number would have the store refuse the whole batch.
        numbers = {name: value for name, value in sample.fields.items() if math.isfinite(value)}
        if not numbers:
            continue
        tags = "".join(f",{_escape(name)}={_escape(value)}" for name, value in sorted(sample.tags.items()) if value)
        fields = ",".join(f"{_escape(name)}={value!r}" for name, value in sorted(numbers.items()))
        made.append(f"{_escape(sample.measurement)}{tags} {fields} {stamp}\n")
    return "".join(made).encode()


def last_sample(samples: Iterable[Sample], at: float) -> Document:
    """What control shows as the machine's present: {at, host: fields, instances: {uuid: fields}}."""
    host: dict[str, float] = {}
    instances: dict[str, dict[str, float]] = {}
    for sample in samples:
        if sample.measurement in HOST_MEASUREMENTS:
            host |= sample.fields
        elif sample.measurement == INSTANCE_MEASUREMENT and "instance" in sample.tags:
            instances.setdefault(sample.tags["instance"], {}).update(sample.fields)
    return {"at": at, "host": host, "instances": instances}


def _escape(text: str) -> str:
    text = text.replace("\n", " ")
    for character in ("\\", ",", "=", " "):
        text = text.replace(character, "\\" + character)
    return text

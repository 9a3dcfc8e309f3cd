"""Samples: lines, the last sample, the metric store that is away or refuses, samplers that hang or fail."""

import http.server
import ssl
import threading
from collections import Counter

import pytest

from cloud.agent import registry
from cloud.agent.config import AgentConfig
from cloud.agent.host_sampler import HostSampler
from cloud.agent.registry import Machine, Sample
from cloud.agent.sampling import MetricStore, Sampling, last_sample, lines
from cloud.common import pki
from monitoring import catalogue
from tests.cloud.agent.waiting import wait_until


def test_lines_are_influx():
    sample = Sample("mica_host", {"host": "h-1", "empty": ""}, {"load1_count": 0.5, "cpu_count": 2})
    assert lines([sample], 1.5) == b"mica_host,host=h-1 cpu_count=2,load1_count=0.5 1500000000\n"


def test_tags_cannot_break_out_of_their_line():
    sample = Sample("m", {"device": "a b,c=d\nm2 x=1"}, {"x": 1})
    assert lines([sample], 0) == rb"m,device=a\ b\,c\=d\ m2\ x\=1 x=1 0" + b"\n"


def test_sample_without_fields_makes_no_line():
    assert lines([Sample("m", {}, {})], 0) == b""


def test_what_is_no_number_is_left_out():
    assert (
        lines([Sample("m", {}, {"x": float("nan"), "y": 1}), Sample("m", {}, {"z": float("inf")})], 0) == b"m y=1 0\n"
    )


def test_last_sample_is_by_instance():
    samples = [
        Sample("mica_host", {"host": "h"}, {"cpu_count": 2}),
        Sample("mica_host_core", {"host": "h", "core": "0"}, {"used_percent": 9}),
        Sample("mica_instance", {"instance": "a", "host": "h"}, {"cpu_used_percent": 5}),
    ]
    assert last_sample(samples, 7) == {"at": 7, "host": {"cpu_count": 2}, "instances": {"a": {"cpu_used_percent": 5}}}


@pytest.mark.parametrize("kind", ["host", "image_server"])
def test_host_sampler_speaks_the_catalogues_words(tmp_path, kind):
    machine = Machine("h-1", kind, AgentConfig("h-1"), tmp_path)
    sampler = HostSampler()
    sampler.sample(machine)
    taken = sampler.sample(machine)
    known = {measurement.name: {field.name for field in measurement.fields} for measurement in catalogue.MEASUREMENTS}
    for sample in taken:
        assert set(sample.fields) <= known[sample.measurement], sample.measurement
        assert all(isinstance(value, (int, float)) for value in sample.fields.values())
    main = taken[0].fields
    assert set(main) >= {"memory_used_percent", "disk_root_used_bytes", "uptime_seconds", "network_all_in_bytes_total"}
    assert all(0 <= value <= 100 for name, value in main.items() if name.endswith("_percent"))


def test_platforms_own_bytes_are_counted(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one").write_bytes(b"x" * 100_000)
    machine = Machine("h-1", "host", AgentConfig("h-1"), tmp_path / "state")
    machine.resources["platform_paths"] = {tmp_path / "images"}
    assert HostSampler().sample(machine)[0].fields["disk_platform_used_bytes"] >= 100_000


class Store(http.server.ThreadingHTTPServer):
    """A metric store that answers what it is told to."""

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), StoreHandler)
        self.statuses, self.batches, self.tokens = [], [], set()
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"


class StoreHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.server.tokens.add(self.headers["Authorization"])
        if status < 300:
            self.server.batches.append((self.path, body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def store(pki_dir):
    pki.issue(pki_dir, "metrics", out=pki_dir / "metrics", addresses=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki_dir / "metrics.pem", pki_dir / "metrics.key")
    made = Store(context)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def only(monkeypatch):
    """Registers samplers, and no others."""

    def register(**samplers):
        monkeypatch.setattr(registry, "SAMPLERS", samplers)
        monkeypatch.setattr("cloud.agent.sampling.SAMPLERS", samplers)

    return register


def sampling(machine, config, shown):
    made = Sampling(machine, shown.append, MetricStore(config).push)
    threading.Thread(target=made._send, daemon=True).start()
    return made


def configured(config, store):
    return AgentConfig(
        config.uuid, metrics_url=f"https://{store.address}/", metrics_token="secret", directory=config.directory
    )


def test_samples_reach_the_store_with_the_token(machine, config, store, only):
    only(one=lambda machine: [Sample("mica_host", {"host": "h"}, {"cpu_count": 2})])
    shown = []
    made = sampling(machine, configured(config, store), shown)
    made.once()
    wait_until(lambda: store.batches)
    made.stop()
    path, body = store.batches[0]
    assert path == "/write"
    assert body.startswith(b"mica_host,host=h cpu_count=2 ")
    assert store.tokens == {"Bearer secret"}
    assert shown[0]["host"] == {"cpu_count": 2}


def test_store_that_is_away_gets_them_later_and_one_that_refuses_never(machine, config, store, only):
    numbers = iter(range(10))
    only(one=lambda machine: [Sample("m", {}, {"n": next(numbers)})])
    made = sampling(machine, configured(config, store), [])
    store.statuses = [503]
    made.once()
    wait_until(lambda: not store.statuses)
    made.once()
    wait_until(lambda: len(store.batches) == 2)
    store.statuses = [400]
    made.once()
    wait_until(lambda: not store.statuses)
    made.once()
    wait_until(lambda: len(store.batches) == 3)
    made.stop()
    assert [body.split()[1] for _, body in store.batches] == [b"n=0", b"n=1", b"n=3"]


def test_unreachable_store_costs_the_oldest_samples_only(machine, only):
    only(one=lambda machine: [Sample("m", {}, {"n": 1})])

    def push(batch):
        raise ConnectionRefusedError

    shown = []
    made = Sampling(machine, shown.append, push)
    for _ in range(100):
        made.once()
    assert len(made._batches) == 60
    assert len(shown) == 100


def test_sampler_that_hangs_is_not_started_twice_and_the_others_go_on(machine, only, monkeypatch):
    monkeypatch.setattr("cloud.agent.sampling.PATIENCE_S", 0.05)
    gate, calls = threading.Event(), Counter()

    def hang(machine):
        calls["hang"] += 1
        gate.wait(10)
        return []

    def fail(machine):
        calls["fail"] += 1
        raise ZeroDivisionError

    only(hang=hang, fail=fail, well=lambda machine: [Sample("m", {}, {"n": 1})])
    made = Sampling(machine, lambda document: None, None)
    for _ in range(3):
        assert [sample.measurement for sample in made.once()] == ["m"]
    gate.set()
    made.stop()
    assert calls == {"hang": 1, "fail": 3}

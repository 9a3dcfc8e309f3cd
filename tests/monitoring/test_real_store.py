"""VictoriaMetrics itself: pushed lines become the catalogue's series, and a scope cannot be talked around."""

import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cloud.common.driver import Rejected
from monitoring.catalogue import BY_NAME
from monitoring.drivers.prometheus import PrometheusStore

pytestmark = pytest.mark.lab

SAMPLED_AT = int(time.time()) - 30
STAMP = f"{SAMPLED_AT}000000000\n"
LINES = f"mica_host,host=h1 cpu_used_percent=12.5 {STAMP}" + "".join(
    f"mica_instance,instance=i{n},project=p{n},host=h1 cpu_used_percent={n},network_all_in_bytes_total={n}00 {STAMP}"
    for n in (1, 2)
)


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    data = tmp_path_factory.mktemp("store")
    command = ["victoria-metrics", f"-httpListenAddr={address}", f"-storageDataPath={data}", "-search.latencyOffset=0s"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        for line in process.stderr:  # it tells in its log when it is ready
            if "started VictoriaMetrics" in line:
                break
        httpx.post(f"http://{address}/write", content=LINES).raise_for_status()
        httpx.get(f"http://{address}/internal/force_flush").raise_for_status()
        yield f"http://{address}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def names(answer: dict[str, Any]) -> set[str]:
    return {row["metric"].get("__name__", "") for row in answer["data"]["result"]}


def test_lines_become_catalogue_series(base_url: str) -> None:
    answer = PrometheusStore(base_url).query('{__name__=~"mica_.*"}', time=SAMPLED_AT + 5)
    assert names(answer) == {
        "mica_host_cpu_used_percent",
        "mica_instance_cpu_used_percent",
        "mica_instance_network_all_in_bytes_total",
    }
    assert names(answer) <= set(BY_NAME)


@pytest.mark.parametrize(
    "query",
    [
        '{__name__=~"mica_.*"}',
        'mica_instance_cpu_used_percent{project="p2"} or {__name__=~".+"}',
        '{project=~"p2|p1"}',
        'label_del(mica_instance_cpu_used_percent, "project") or mica_host_cpu_used_percent',
        'sum(mica_instance_cpu_used_percent) by (instance) or mica_instance_cpu_used_percent{project!="p1"}',
    ],
)
def test_a_scope_cannot_be_talked_around(base_url: str, query: str) -> None:
    store = PrometheusStore(base_url)
    for only, expected in (('{project=~"p1"}', {"i1"}), ('{project=~"none"}', set()), ("", {"i1", "i2"})):
        for answer in (
            store.query(query, time=SAMPLED_AT + 5, only=only),
            store.query_range(query, start=SAMPLED_AT, end=SAMPLED_AT + 20, step_s=10, only=only),
        ):
            rows = [row["metric"] for row in answer["data"]["result"]]
            assert {row["instance"] for row in rows if "instance" in row} == expected
            assert not only or all("instance" in row for row in rows)  # no host's series either


def test_bad_promql_is_rejected(base_url: str) -> None:
    with pytest.raises(Rejected):
        PrometheusStore(base_url).query("up{", time=0)

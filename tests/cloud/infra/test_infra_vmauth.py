"""The list of agents that may push samples, read by a real vmauth."""

import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cloud.infra import enrolment, secrets
from cloud.infra.drivers import vmauth
from cloud.infra.models import Agent
from tests.cloud.agent.waiting import free_port, wait_until
from tests.factories.infra import AgentFactory


def tokens(path: str) -> list[str]:
    return [user["bearer_token"] for user in json.loads(Path(path).read_text())["users"]]


class Store(BaseHTTPRequestHandler):
    """Takes everything, remembers where it came."""

    paths: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.paths.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def metrics() -> Iterator[str]:
    Store.paths = []
    server = HTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def guard(tmp_path: Path, metrics: str) -> Iterator[tuple[Path, str]]:
    """A running vmauth: its list and its address."""
    if shutil.which("vmauth") is None:
        pytest.skip("vmauth is not installed")
    path, port = tmp_path / "auth.yml", free_port()
    vmauth.write(path, [], metrics)
    process = subprocess.Popen(
        ["vmauth", f"-auth.config={path}", f"-httpListenAddr=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: vmauth.reload(f"{url}/-/reload"), 10)
    yield path, url
    process.terminate()
    process.wait()


def push(url: str, token: str) -> int:
    request = urllib.request.Request(url, data=b"mica_host,host=a v=1", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_only_known_tokens_and_only_writing(guard: tuple[Path, str], metrics: str) -> None:
    path, url = guard
    assert push(f"{url}/write", "one") >= 400
    vmauth.write(path, ["one", "two: {}\n- \"'"], metrics)
    assert vmauth.reload(f"{url}/-/reload")
    wait_until(lambda: push(f"{url}/write", "one") == 204)
    assert push(f"{url}/write", "three") >= 400
    assert push(f"{url}/api/v1/query?query=up", "one") >= 400
    assert push(f"{url}/api/v1/admin/tsdb/delete_series?match[]=up", "one") >= 400
    assert set(Store.paths) == {"/write"}
    vmauth.write(path, [], metrics)
    assert vmauth.reload(f"{url}/-/reload")
    wait_until(lambda: push(f"{url}/write", "one") >= 400)


def test_the_list_keeps_its_mode_and_is_never_half(tmp_path: Path) -> None:
    path = tmp_path / "auth.yml"
    vmauth.write(path, ["one"], "http://store")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(TypeError):
        vmauth.write(path, [object()], "http://store")  # type: ignore[list-item]
    assert tokens(str(path))[1:] == ["one"]
    vmauth.write(path, ["two"], "http://store")
    assert path.stat().st_mode & 0o777 == 0o640
    assert [found.name for found in tmp_path.iterdir()] == ["auth.yml"]


def test_nobody_answers() -> None:
    assert not vmauth.reload(f"http://127.0.0.1:{free_port()}/-/reload")
    assert not vmauth.reload("nonsense")


@pytest.mark.django_db
def test_every_agent_with_a_token_is_on_it(places: dict[str, Any], store: Any) -> None:
    first, second = AgentFactory(), AgentFactory()
    AgentFactory()
    for agent in (first, second, first):
        enrolment.give_token(agent)
    held = [secrets.unseal(Agent.objects.get(pk=agent.pk).metrics_token_sealed) for agent in (first, second)]
    assert sorted(tokens(places["vmauth_file"])[1:]) == sorted(held)
    enrolment.revoke(first)
    assert tokens(places["vmauth_file"])[1:] == held[1:]
    assert Agent.objects.get(pk=first.pk).metrics_token_sealed == ""


@pytest.mark.django_db
def test_an_installation_without_a_guard(places: dict[str, Any]) -> None:
    places["vmauth_file"] = ""
    enrolment.give_token(AgentFactory())

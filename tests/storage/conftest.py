"""What tests of storage share: the wires of the job engine, desired sections kept instead of sent."""

from typing import Any

import pytest

from cloud.common import pki
from cloud.infra import streams
from cloud.infra.services import desired
from cloud.jobs import engine
from storage.drivers.fake import WORLDS
from tests.cloud.jobs.conftest import Line
from tests.cloud.jobs.conftest import line as _wires  # noqa: F401
from tests.storage.simulated import Machines


@pytest.fixture
def line(transactional_db: None, _wires: Line) -> Line:  # noqa: F811
    """The wires of the job engine. Jobs begin on commit, so the tests that ask for this one commit."""
    return _wires


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """(agent uuid, section) of each section that would go out."""
    kept: list[tuple[Any, str]] = []
    monkeypatch.setattr(desired, "_send_soon", lambda agent, section: kept.append((agent, section)))
    return kept


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topics that waiting jobs were woken by."""
    kept: list[str] = []
    monkeypatch.setattr(engine, "wake", kept.append)
    return kept


@pytest.fixture(scope="session")
def _pki(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("pki")
    pki.init(directory)
    return directory


@pytest.fixture
def places(_pki: Any, settings: Any) -> dict[str, Any]:
    """`settings.MICA` with a PKI."""
    settings.MICA = {**settings.MICA, "pki": _pki}
    streams._signing_key.cache_clear()
    mica: dict[str, Any] = settings.MICA
    return mica


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, line: Any, places: Any) -> Any:
    """Agents that really obey, on storages in memory; the engine's commands go to them."""
    found = Machines(monkeypatch, tmp_path)
    deliver = line.deliver

    def to_its_machine(agent: str, command: Any) -> None:
        line.reply = lambda asked: found.obey(asked, agent)
        deliver(agent, command)

    monkeypatch.setattr(line, "deliver", to_its_machine)
    yield found
    WORLDS.clear()

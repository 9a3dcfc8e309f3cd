"""What tests of storage share: the wires of the job engine, desired sections kept instead of sent."""

from typing import Any

import pytest

from cloud.common import pki
from cloud.infra import streams
from cloud.infra.services import desired
from cloud.jobs import engine
from tests.cloud.jobs.conftest import line  # noqa: F401


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

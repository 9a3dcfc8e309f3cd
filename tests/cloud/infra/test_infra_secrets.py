"""Secrets are sealed, found for a while, and forgotten."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from cloud.common.errors import Problem
from cloud.infra import secrets


def test_kept_found_forgotten(places: dict[str, Any], store: Any) -> None:
    key = secrets.keep({"password": "very secret"})
    assert secrets.find(key) == {"password": "very secret"}
    assert "very secret" not in store.get(f"mica:secret:{key}")
    assert 890 < store.ttl(f"mica:secret:{key}") <= 900
    secrets.forget(key)
    secrets.forget(key)
    with pytest.raises(Problem) as caught:
        secrets.find(key)
    assert caught.value.code == "secret_expired"


def test_each_use_keeps_it_on(places: dict[str, Any], store: Any) -> None:
    key = secrets.keep({"password": "very secret"})
    store.expire(f"mica:secret:{key}", 5)
    secrets.find(key)
    assert 890 < store.ttl(f"mica:secret:{key}") <= 900


def test_another_key_opens_nothing(places: dict[str, Any], tmp_path: Path) -> None:
    sealed = secrets.seal("text")
    assert secrets.unseal(sealed) == "text"
    (tmp_path / "secrets.key").write_bytes(Fernet.generate_key())
    places["pki"] = tmp_path
    with pytest.raises(Problem) as caught:
        secrets.unseal(sealed)
    assert caught.value.code == "secret_unreadable"

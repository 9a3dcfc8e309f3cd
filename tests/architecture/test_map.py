"""The map of rooms in docs/architecture.md is true: who may import whom, whose rows may point at whose, how long a room
may grow. Each import contract is shown to bite by a deliberate breach."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from django.apps import apps

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("cloud", "compute", "storage", "network", "monitoring")
CONTRACTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

# Lower numbers lie lower; equals do not see each other.
RANKS = {
    "common": 0,
    "config": 1,
    "events": 2,
    "jobs": 3,
    "accounts": 4,
    "infra": 5,
    "network": 6,
    "storage": 6,
    "compute": 7,
    "backup": 8,
    "monitoring": 9,
    "billing": 9,
    "portal": 10,
}
# Every resource belongs to a project and the session to a user: those rows are below all that use them.
FOUNDATION = {"accounts", "auth", "contenttypes", "sessions"}

BREACHES = {
    "direction": ("storage/models/breach.py", "import compute.models\n"),
    "agents-know-no-django": ("compute/drivers/breach.py", "import django.db\n"),
    "native-libraries": ("network/services/breach.py", "import pyroute2\n"),
    "rooms": ("compute/models/breach.py", "import compute.services.instances\n"),
}


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--contract", contract]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_every_contract_has_its_breach() -> None:
    assert {contract["id"] for contract in CONTRACTS} == set(BREACHES)


@pytest.mark.parametrize("contract", sorted(BREACHES))
def test_a_breach_of_a_contract_is_found(tmp_path: Path, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    where, line = BREACHES[contract]
    (tmp_path / where).write_text(line)
    found = lint(tmp_path, contract)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "BROKEN" in found.stdout


def test_rows_point_downwards_only() -> None:
    """String foreign keys escape the import contracts: each is ranked here."""
    wrong = []
    for model in apps.get_models():
        label = model._meta.app_label
        if label not in RANKS:
            continue
        for field in model._meta.get_fields():
            target = getattr(field, "related_model", None)
            if not getattr(field, "concrete", False) or target is None or target == "self":
                continue
            other = target._meta.app_label
            if other == label or other in FOUNDATION:
                continue
            if RANKS.get(other, 99) >= RANKS[label]:
                wrong.append(f"{model.__name__}.{field.name} → {other}")
    assert not wrong


def test_what_outlives_its_user_points_at_nobody() -> None:
    """Jobs, events and config keep actor and project as uuid and name."""
    for label in ("jobs", "events", "config"):
        for model in apps.get_app_config(label).get_models():
            targets = {field.related_model._meta.app_label for field in model._meta.fields if field.related_model}
            assert targets <= {label}, model


def test_no_code_in_packages_on_the_agents_path() -> None:
    for package in ("cloud", "cloud/common", "cloud/agent", "compute", "storage", "network"):
        places = [CHECKOUT / package / "__init__.py"]
        if package in ("compute", "storage", "network"):
            places += [CHECKOUT / package / room / "__init__.py" for room in ("agent", "drivers")]
        assert [str(place) for place in places if place.read_text().strip()] == []


def test_no_room_holds_more_than_one_head() -> None:
    tracked = [path for package in (*PACKAGES, "launcher", "tests") for path in (CHECKOUT / package).rglob("*.py")]
    lengths = {path: len(path.read_text().splitlines()) for path in tracked if "migrations" not in path.parts}
    long = {str(path.relative_to(CHECKOUT)): length for path, length in lengths.items() if length > 400}
    assert not long

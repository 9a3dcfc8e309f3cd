"""The registry of permission names."""

import re
from pathlib import Path

import pytest

from cloud.common import permissions

ROOT = Path(__file__).parents[3]
REQUIRED = re.compile(r"""\.require\(\s*["']([a-z0-9_.]+)["']""")
APPS = ("cloud", "compute", "storage", "network", "monitoring")


def test_names_have_one_shape() -> None:
    for wrong in ("start", "Instance.start", "instance.start.now", "instance-start", ""):
        with pytest.raises(ValueError, match="named"):
            permissions.declare(wrong, "label")


def test_a_name_has_one_meaning() -> None:
    permissions.declare("audit_record.view", permissions.declared()["audit_record.view"])
    with pytest.raises(ValueError, match="twice"):
        permissions.declare("audit_record.view", "something else")


def test_what_services_require_is_declared() -> None:
    required = {
        name for app in APPS for file in (ROOT / app).rglob("*.py") for name in REQUIRED.findall(file.read_text())
    }
    assert "user.create" in required
    assert required - set(permissions.declared()) == set()

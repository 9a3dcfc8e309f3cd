"""The registry of permission names."""

import re
from pathlib import Path

import pytest

from cloud.accounts.models import Account, ApiToken
from cloud.common import permissions
from cloud.common.api import router
from cloud.common.resources import kind_of, model_of

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


def test_what_lists_require_is_declared() -> None:
    lists = [
        viewset for _prefix, viewset, _name in router._router.registry if getattr(viewset, "queryset", None) is not None
    ]
    required = {view.view_permission or f"{kind_of(view.queryset.model)}.view" for view in lists}
    assert "api_token.view" in required
    assert required - set(permissions.declared()) == set()


def test_kinds() -> None:
    class L2Network:
        kind = property(str)  # a column, not a word

    class Special(Account):
        kind = "very_special"

        class Meta:
            abstract = True

    assert [kind_of(model) for model in (Account, ApiToken, L2Network, Special)] == [
        "account",
        "api_token",
        "l2_network",
        "very_special",
    ]
    assert kind_of(ApiToken()) == "api_token"
    assert model_of("cluster") is not None
    assert model_of("api_token") is None

"""The built-in roles, in code: which permission names each grants, from the widest to the narrowest."""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

# What tenants work with. Infrastructure, settings and the accounts of others are not among it.
_TENANT_KINDS = ("instance", "volume", "image", "nic", "l3_network", "ip_range", "ip_address")
_TENANT_SEES = (
    "zone",
    "l2_network",
    "instance_offering",
    "disk_offering",
    "job",
    "metric",
    "audit_record",
    "project",
    "api_token",
    "quota",
)
_TENANT_ACTS = frozenset({f"{kind}.*" for kind in _TENANT_KINDS} | {"job.cancel", "job.retry", "api_token.*"})
_TENANT_VIEWS = frozenset(f"{kind}.view" for kind in (*_TENANT_KINDS, *_TENANT_SEES))
_USER_ACTS = frozenset({"user.view", "user.create", "user.update", "user.delete"})


@dataclass(frozen=True)
class Role:
    """`grants` are permission names with wildcards; `sees_all` looks beyond projects, `sees_account` beyond one's own
    projects to all of the account."""

    name: str
    label: Any
    grants: frozenset[str]
    sees_all: bool = False
    sees_account: bool = False


_IN_ORDER = (
    Role("platform_admin", _("Platform administrator"), frozenset({"*"}), sees_all=True, sees_account=True),
    Role("auditor", _("Auditor"), frozenset({"*.view"}), sees_all=True, sees_account=True),
    Role(
        "account_admin",
        _("Account administrator"),
        _TENANT_ACTS | _TENANT_VIEWS | {"project.*", "account.view"} | _USER_ACTS,
        sees_account=True,
    ),
    Role("project_member", _("Project member"), _TENANT_ACTS | _TENANT_VIEWS),
    Role("monitor_only", _("Monitoring only"), _TENANT_VIEWS),
)

PLATFORM_ADMIN = "platform_admin"
PROJECT_MEMBER = "project_member"
ROLES = {role.name: role for role in _IN_ORDER}
RANK = {role.name: rank for rank, role in enumerate(_IN_ORDER)}
CHOICES = [(role.name, role.label) for role in _IN_ORDER]

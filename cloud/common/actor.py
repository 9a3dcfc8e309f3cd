"""Who acts: a person, a token or the platform itself, with what they may do and where they come from."""

import uuid
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from django.utils.translation import gettext as _

from cloud.common.errors import Missing, NotPermitted


@dataclass(frozen=True)
class Actor:
    """The one who asks for an act. Services take it as keyword `actor`.

    `grants` are permission names with wildcards, as `instance.*`; `projects` the projects whose resources the actor
    sees and `project` the one new resources belong to; `sees_all` is the platform administrator or auditor.
    """

    name: str
    user: uuid.UUID | None = None
    account: uuid.UUID | None = None
    project: uuid.UUID | None = None
    projects: frozenset[uuid.UUID] = frozenset()
    grants: frozenset[str] = frozenset()
    sees_all: bool = False
    address: str = ""
    request_id: str = ""
    via: str = field(default="session", compare=False)

    def may(self, permission: str) -> bool:
        return any(fnmatchcase(permission, grant) for grant in self.grants)

    def sees(self, resource: Any) -> bool:
        return self.sees_all or getattr(resource, "project_id", None) in self.projects

    def require(self, permission: str, resource: Any = None) -> None:
        """Raise Missing when the resource is not visible to the actor, NotPermitted when the act is not granted."""
        if resource is not None and not self.sees(resource):
            raise Missing(_("There is no such resource."))
        if not self.may(permission):
            raise NotPermitted(
                _("%(name)s lacks the permission %(permission)s.") % {"name": self.name, "permission": permission},
                permission=permission,
            )


def platform(reason: str = "platform") -> Actor:
    """The platform itself: what runs without a person behind it."""
    return Actor(name=reason, grants=frozenset({"*"}), sees_all=True, via="platform")

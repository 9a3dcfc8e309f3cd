"""Who gets into a view at all; what they may do there is checked by services."""

from typing import Any

from rest_framework.permissions import BasePermission


class SignedIn(BasePermission):
    """A token or a session must say who asks."""

    def has_permission(self, request: Any, view: Any) -> bool:
        return getattr(request.user, "is_authenticated", False) and getattr(request, "actor", None) is not None

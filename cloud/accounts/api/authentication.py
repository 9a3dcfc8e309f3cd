"""Who asks the API: a bearer token or a session. Both leave `request.actor` behind."""

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import authentication
from rest_framework.exceptions import AuthenticationFailed

from cloud.accounts.models import ApiToken, User
from cloud.accounts.services import actors, tokens
from cloud.common.errors import Problem

PROJECT_HEADER = "X-Mica-Project"
_KEYWORD = "bearer"


class BearerAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer mica_…`."""

    def authenticate(self, request: Any) -> tuple[User, ApiToken] | None:
        keyword, _space, secret = request.headers.get("Authorization", "").partition(" ")
        if keyword.lower() != _KEYWORD:
            return None
        token = tokens.recognise(secret.strip())
        if token is None:
            raise AuthenticationFailed(_("The token is unknown, expired or revoked."), code="bad_token")
        _set_actor(request, token.user, via="token", token=token)
        return token.user, token

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="mica"'


class SessionAuthentication(authentication.SessionAuthentication):
    """The signed-in session of the web pages, with its CSRF token on what changes something."""

    def authenticate(self, request: Any) -> Any:
        found = super().authenticate(request)
        if found is not None:
            _set_actor(request, found[0], via="session")
        return found

    def enforce_csrf(self, request: Any) -> None:
        try:
            super().enforce_csrf(request)
        except Exception as refused:
            detail = getattr(refused, "detail", None)
            if detail is None:
                raise
            raise CsrfFailed(str(detail), advice=_("Send the cookie csrftoken in the header X-CSRFToken.")) from None


class CsrfFailed(Problem):
    status, code = 403, "csrf_failed"


def _set_actor(request: Any, user: User, *, via: str, token: ApiToken | None = None) -> None:
    actor = actors.of(
        user,
        project=request.headers.get(PROJECT_HEADER) or None,
        address=request.META.get("REMOTE_ADDR") or "",
        request_id=getattr(request, "request_id", ""),
        via=via,
        token=token,
    )
    request.actor = request._request.actor = actor

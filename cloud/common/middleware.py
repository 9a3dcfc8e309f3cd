"""What every request passes: a request id that its log lines, audit records and problem documents share."""

import re
import time
import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

log = structlog.get_logger("mica.web")

HEADER = "X-Request-Id"
_USABLE = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class RequestIdMiddleware:
    """Takes `X-Request-Id` from the caller, or makes one; gives it back, and writes one log line a request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        offered = request.headers.get(HEADER, "")
        request_id = offered if _USABLE.fullmatch(offered) else uuid.uuid4().hex
        request.request_id = request_id  # type: ignore[attr-defined]
        started = time.monotonic()
        with bound_contextvars(request_id=request_id):
            response = self.get_response(request)
            log.info(
                "request",
                method=request.method,
                path=_without_secret(request),
                status=response.status_code,
                duration_ms=round((time.monotonic() - started) * 1000),
            )
        response.headers[HEADER] = request_id
        return response


def _without_secret(request: HttpRequest) -> str:
    """The path for the log: a part that the route calls `secret` or `ticket` is not written down."""
    path = request.path
    for name, value in (request.resolver_match.kwargs if request.resolver_match else {}).items():
        if name in ("secret", "ticket"):
            path = path.replace(str(value), f"<{name}>")
    return path


class ContentSecurityPolicyMiddleware:
    """Sends a strict Content-Security-Policy: scripts, styles and connections of our own origin only."""

    POLICY = (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", self.POLICY)
        return response

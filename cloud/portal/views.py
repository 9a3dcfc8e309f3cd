"""Signing in by link, the way home, and the answers to what goes wrong outside the API framework."""

from typing import Any

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from cloud.accounts.services import actors, links
from cloud.common.api import problems
from cloud.common.errors import Invalid, Missing, NotPermitted, Problem
from cloud.common.middleware import ContentSecurityPolicyMiddleware
from cloud.events.services import audit

BACKEND = "django.contrib.auth.backends.ModelBackend"


@never_cache
@require_safe
@sensitive_variables("secret")
def sign_in_by_link(request: HttpRequest, secret: str) -> HttpResponse:
    """Signs the link's user in, once, with a fresh session; a link that does not work says so."""
    user = links.consume(secret) if request.method == "GET" else None
    if user is None:
        return _page(
            request,
            410,
            _("This link does not work any more"),
            _("A sign-in link works once and for 15 minutes. Make a new one with: ./mica manage signin_link USER"),
        )
    request.session.flush()
    login(request, user, backend=BACKEND)
    actor = actors.of(user, address=_address(request), request_id=getattr(request, "request_id", ""))
    audit.record("user.sign_in", actor=actor, resource=user, detail={"by": "link"})
    response = redirect("/")
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """Ends the session."""
    logout(request)
    return redirect("/")


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Until there are pages, the way in is the API's documentation."""
    return redirect("api-docs")


@require_safe
@ensure_csrf_cookie
def api_docs(request: HttpRequest) -> HttpResponse:
    """The API's documentation, to be tried out in the caller's session."""
    response = render(request, "portal/api_docs.html")
    # Swagger UI sets styles of its own on elements; scripts stay ours alone.
    policy = f"{ContentSecurityPolicyMiddleware.POLICY}; style-src 'self' 'unsafe-inline'"
    response.headers["Content-Security-Policy"] = policy
    return response


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    return _answer(request, Invalid(_("The request cannot be read."), code="malformed_request"))


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    return _answer(request, NotPermitted(_("This is not permitted.")))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponseBase:
    advice = _("Load the page again, allow cookies, and try once more.")
    return _answer(request, NotPermitted(_("The CSRF check failed."), code="csrf_failed", advice=advice))


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    return _answer(request, Missing(_("There is nothing at %(path)s.") % {"path": request.path}, code="unknown_route"))


def server_error(request: HttpRequest) -> HttpResponseBase:
    problem = Problem(
        _("The platform made a mistake; it is in the log under this request id."),
        code="internal_error",
        advice=_("Try again; if it stays, give the request id to the operator."),
    )
    problem.status, problem.title = 500, _("Internal error")
    return _answer(request, problem)


def _answer(request: HttpRequest, problem: Problem) -> HttpResponseBase:
    """A problem document for programs, a plain page for people."""
    if request.path.startswith("/api/") or "text/html" not in request.headers.get("Accept", ""):
        return problems.json_response(problem, request)
    return _page(request, problem.status, str(problem.detail), str(problem.advice))


def _page(request: HttpRequest, status: int, title: str, text: str) -> HttpResponse:
    context: dict[str, Any] = {"title": title, "text": text, "request_id": getattr(request, "request_id", "")}
    return render(request, "portal/message.html", context, status=status)


def _address(request: HttpRequest) -> str:
    return request.META.get("REMOTE_ADDR") or ""

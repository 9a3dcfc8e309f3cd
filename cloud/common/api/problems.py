"""From any exception to an `application/problem+json` document (RFC 9457)."""

from collections.abc import Iterator
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, IntegrityError, OperationalError
from django.db.models import ProtectedError
from django.http import Http404, JsonResponse
from django.utils.translation import gettext as _
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error
from rest_framework.settings import api_settings

from cloud.common import audit, deletion
from cloud.common.errors import Conflict, Invalid, Missing, NotPermitted, NotSignedIn, Problem, Unavailable

log = structlog.get_logger("mica.api")

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = "5"


def document(problem: Problem, request_id: str = "") -> dict[str, Any]:
    """The problem as plain JSON: its standard members, code, errors, advice, request_id, and what it has besides."""
    return {
        **problem.extra,
        "type": f"urn:mica:problem:{problem.code}",
        "title": str(problem.title),
        "status": problem.status,
        "detail": str(problem.detail or problem.title),
        "code": problem.code,
        "errors": problem.errors,
        "advice": str(problem.advice),
        "request_id": request_id,
    }


def json_response(problem: Problem, request: Any) -> JsonResponse:
    """The answer for places outside the API framework: middleware and error handlers."""
    body = document(problem, getattr(request, "request_id", ""))
    return JsonResponse(body, status=problem.status, content_type=MEDIA_TYPE)


def handle(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: nothing leaves the API but a problem document."""
    request = context.get("request")
    problem = translate(error)
    if problem is None:
        log.exception("unhandled", exc_info=error)
        problem = Problem(
            _("The platform made a mistake; it is in the log under this request id."),
            code="internal_error",
            advice=_("Try again; if it stays, give the request id to the operator."),
        )
        problem.status, problem.title = 500, _("Internal error")
    if isinstance(error, NotPermitted):
        _note_refusal(error, context)
    body = document(problem, getattr(request, "request_id", ""))
    return Response(body, status=problem.status, content_type=MEDIA_TYPE, headers=_headers(error, problem))


def translate(error: Exception) -> Problem | None:
    """The problem that an exception means to the caller; None for a defect of ours."""
    match error:
        case Problem():
            return error
        case Http404():
            return Missing(_("There is no such resource."))
        case PermissionDenied():
            return NotPermitted(str(error))
        case ProtectedError():
            return deletion.in_use(error)
        case RequestDataTooBig():
            return _of_status(413, "too_large", _("The request is too large."), _("Send less at once."))
        case SuspiciousOperation():
            return Invalid(_("The request cannot be read."), code="malformed_request")
        case IntegrityError():
            log.warning("integrity_error", exc_info=error)
            return Conflict(_("This contradicts what is there already, or something has just changed."))
        case DataError():
            log.warning("data_error", exc_info=error)
            return Invalid(_("A value is out of its range."))
        case OperationalError():
            log.error("database_unavailable", exc_info=error)
            return Unavailable(_("The database does not answer."), advice=_("Try again in a few seconds."))
        case RedisError():
            log.error("redis_unavailable", exc_info=error)
            return Unavailable(_("The message store does not answer."), advice=_("Try again in a few seconds."))
        case exceptions.APIException():
            return _of_framework(error)
    return None


def flatten(detail: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested validation errors with their dotted path: `nics.0.ip`."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from flatten(inner, _join(path, str(name)))
    elif isinstance(detail, (list, tuple)):
        for index, inner in enumerate(detail):
            yield from flatten(inner, _join(path, str(index)) if isinstance(inner, (dict, list)) else path)
    else:
        yield path or api_settings.NON_FIELD_ERRORS_KEY, detail


def _join(path: str, name: str) -> str:
    # What concerns a nested object as a whole is told under the object's own name.
    if path and name == api_settings.NON_FIELD_ERRORS_KEY:
        return path
    return f"{path}.{name}" if path else name


def _of_framework(error: exceptions.APIException) -> Problem:
    match error:
        case exceptions.ValidationError():
            return _of_validation(error)
        case exceptions.ParseError():
            advice = _("Send one JSON object, encoded in UTF-8.")
            return Invalid(str(error.detail), code="malformed_json", advice=advice)
        case exceptions.NotAuthenticated():
            return NotSignedIn(
                _("This needs a signed-in user."), advice=_("Send Authorization: Bearer <token>, or sign in.")
            )
        case exceptions.AuthenticationFailed():
            return NotSignedIn(str(error.detail), code=str(error.get_codes()))
        case exceptions.PermissionDenied():
            return NotPermitted(str(error.detail), code=str(error.get_codes()), advice="")
        case exceptions.MethodNotAllowed():
            return _of_status(405, "method_not_allowed", str(error.detail), _("See the Allow header."))
        case exceptions.UnsupportedMediaType():
            advice = _("Send Content-Type: application/json.")
            return _of_status(415, "unsupported_media_type", str(error.detail), advice)
    return _of_status(error.status_code, str(error.default_code), str(error.detail), "")


def _of_validation(error: exceptions.ValidationError) -> Invalid:
    errors: dict[str, list[str]] = {}
    codes = set()
    for name, message in flatten(as_serializer_error(error)):
        errors.setdefault(name, []).append(str(message))
        codes.add(getattr(message, "code", "invalid"))
    code = "unknown_field" if "unknown_field" in codes else "invalid"
    return Invalid(_("Not valid: %(names)s.") % {"names": ", ".join(errors)}, code=code, errors=errors)


def _of_status(status: int, code: str, detail: str, advice: str) -> Problem:
    problem = Problem(detail, code=code, advice=advice)
    problem.status = status
    return problem


def _headers(error: Exception, problem: Problem) -> dict[str, str]:
    headers = {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="mica"'
    if problem.status == 503:
        headers["Retry-After"] = _RETRY_AFTER_S
    return headers


def _note_refusal(error: NotPermitted, context: dict[str, Any]) -> None:
    """A refused act is on record too; a refused look is not."""
    request = context.get("request")
    permission = error.extra.get("permission")
    if permission and getattr(request, "method", "GET") not in ("GET", "HEAD", "OPTIONS"):
        audit.record(str(permission), actor=request.actor, result="refused")  # type: ignore[union-attr]

"""Problems that reach a user: each has a stable code, says what and why, and what to do (RFC 9457)."""

from typing import Any

from django.utils.translation import gettext_lazy as _

Text = Any  # a string or a lazy translation


class Problem(Exception):
    """Base of all problems. `errors` maps field names to lists of messages; `extra` are further document members."""

    status = 400
    code = "invalid"
    title: Text = _("The request cannot be carried out")
    advice: Text = ""

    def __init__(
        self,
        detail: Text = "",
        *,
        code: str | None = None,
        advice: Text = None,
        errors: dict[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(str(detail))
        self.detail = detail
        self.code = code or self.code
        self.advice = self.advice if advice is None else advice
        self.errors = errors or {}
        self.extra = extra


class Invalid(Problem):
    """The input does not make sense; `errors` says which field and why."""

    title = _("The input is not valid")


class NotSignedIn(Problem):
    status, code, title = 401, "not_signed_in", _("Sign in first")


class NotPermitted(Problem):
    status, code, title = 403, "not_permitted", _("Not permitted")
    advice = _("Ask an administrator for a role that grants this permission.")


class Missing(Problem):
    """It does not exist, or it is not the caller's: the answer is the same."""

    status, code, title = 404, "not_found", _("Not found")


class Conflict(Problem):
    """The resource is not in a state for this, or something else holds it."""

    status, code, title = 409, "conflict", _("This is not possible now")


class QuotaExceeded(Conflict):
    code, title = "quota_exceeded", _("The quota is used up")


class Exhausted(Conflict):
    """No free address, VNI, capacity."""

    code, title = "exhausted", _("Nothing free is left")


class NoHostFits(Conflict):
    """`reasons` (extra member): a list of {host, name, reason}, one per host looked at."""

    code, title = "no_host_fits", _("No host has room for this instance")


class Unavailable(Problem):
    """A part of the platform does not answer."""

    status, code, title = 503, "unavailable", _("A part of the platform does not answer")

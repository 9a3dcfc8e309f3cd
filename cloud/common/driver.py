"""The errors a driver may raise. Native errors are translated to these in one place per driver.

Standard library only: this module is on the agent's path.
"""


class DriverError(Exception):
    """Base of all driver errors. `code` is stable and lower snake case; the text is for a person."""

    nature = "failed"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Transient(DriverError):
    """It may work when tried again: a busy lock, a lost connection."""

    nature = "transient"


class NotFound(DriverError):
    """What should be acted on is not there. Success for an undo."""

    nature = "not_found"


class Rejected(DriverError):
    """The request cannot be met as it is, and the user can mend it: a wrong checksum, a full disk."""

    nature = "rejected"


class Unsupported(DriverError):
    """This machine or driver cannot do it."""

    nature = "unsupported"


class Aborted(DriverError):
    """Stopped because control asked for it."""

    nature = "aborted"

    def __init__(self) -> None:
        super().__init__("aborted", "The work was cancelled.")

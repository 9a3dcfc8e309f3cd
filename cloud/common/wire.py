"""What control and agent say to each other, as frozen dataclasses that travel as JSON.

Standard library only: this module is on the agent's path. A message of a domain is a frozen dataclass in
`<app>/messages.py` derived from `Message`, with its `kind`; the envelopes below carry its document.
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, Self

Document = dict[str, Any]
Direction = Literal["run", "undo"]


# Marks a text field of a message as secret: `field(default="", repr=False, metadata=SECRET)`. On its way to a machine
# it is sealed (`cloud.common.sealing`), and opened when the handler is called.
SECRET = {"secret": True}


class Secret(str):
    """A secret text in a document that has not left this process yet: it does not show in logs or messages."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "•••"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "•••"

    def reveal(self) -> str:
        """The text itself."""
        return str.__str__(self)


@dataclass(frozen=True)
class Message:
    """Base of everything asked of an agent or answered by it. `kind` names the handler, as `app.verb_noun`."""

    kind: ClassVar[str] = ""

    def to_document(self) -> Document:
        return typing.cast(Document, _plain(self))

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Build the message from its JSON document.

        Unknown keys are dropped and missing keys take their defaults, so that control and agent may be one release
        apart. Raises TypeError or ValueError when a required key is missing or a value has the wrong shape.
        """
        return typing.cast(Self, _build(cls, document))


@dataclass(frozen=True)
class Command(Message):
    """One step of a job, asked of one machine; its effect happens once per `key`.

    `sequence` grows with every job: the agent refuses a run whose undo it has accepted and any key of an older job on
    the same resource. `deadline` is seconds since the epoch.
    """

    key: str
    job: str
    sequence: int
    resource: str
    step: str
    direction: Direction
    attempt: int
    task: str
    body: Document
    deadline: float


@dataclass(frozen=True)
class Failure(Message):
    """Why a command, query or section failed.

    `nature` is one of `transient` (may be tried again), `not_found`, `rejected` (the user's to mend), `unsupported`
    (the machine cannot), `aborted`, `failed` (a defect or an unknown error).
    """

    nature: str
    code: str
    detail: str


@dataclass(frozen=True)
class Answer(Message):
    """The agent's answer to the command `key`: `body` when it is done, `failure` when it is not."""

    key: str
    agent: str
    body: Document = field(default_factory=dict)
    failure: Failure | None = None


@dataclass(frozen=True)
class Desired(Message):
    """One numbered section of the state that a machine should have; the agent converges to it."""

    agent: str
    section: str
    number: int
    body: Document


@dataclass(frozen=True)
class Held(Message):
    """The number of a section that a machine has converged to, or the reason why it could not.

    `failures` are parts of the number held that could not be converged, by what names them (a network's uuid): all
    the rest is as it should be. `at` is seconds since the epoch by Redis' clock, 0 when the agent does not tell.
    """

    agent: str
    section: str
    number: int
    failure: Failure | None = None
    failures: dict[str, Failure] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True)
class Query(Message):
    """A read-only question, answered within seconds or not at all. `expires` is seconds since the epoch."""

    id: str
    task: str
    body: Document
    expires: float


@dataclass(frozen=True)
class Hello(Message):
    """An agent's first word after it starts. `boot_id` changes when the machine was restarted.

    `failures` are the parts of sections that fail, as documents of `Failure` by section and part; a section that was
    not looked at yet is absent. `at` as in `Held`. `protocol` is the number of `cloud.agent.version`.
    """

    agent: str
    version: str
    boot_id: str
    facts: Document
    held: dict[str, int] = field(default_factory=dict)
    failures: dict[str, Document] = field(default_factory=dict)
    at: float = 0.0
    protocol: int = 1


@dataclass(frozen=True)
class Observation(Message):
    """Something an agent saw: an event or an inventory, told to whoever registered for `topic`. `at` as in `Held`."""

    agent: str
    topic: str
    body: Document
    at: float


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain_field(f, getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _plain_field(known: "dataclasses.Field[Any]", value: Any) -> Any:
    is_secret = known.metadata.get("secret") and isinstance(value, str) and value
    return Secret(value) if is_secret else _plain(value)


def storable(document: Document) -> Document:
    """The document without what PostgreSQL cannot keep: NUL characters and lone surrogates, which machines may say."""
    return typing.cast(Document, _storable(document))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list) else value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build(hint: Any, value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{hint.__name__} needs an object, got {type(value).__name__}")
        hints = _hints(hint)
        known = {f.name: _build(hints[f.name], value[f.name]) for f in dataclasses.fields(hint) if f.name in value}
        return hint(**known)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"a list is needed, got {type(value).__name__}")
        items = [_build(arguments[0] if arguments else Any, item) for item in value]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        return {key: _build(arguments[1], item) for key, item in value.items()}
    return value

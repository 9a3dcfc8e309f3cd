"""What infrastructure asks of every agent, and hears of it."""

from dataclasses import dataclass, field
from typing import ClassVar

from cloud.common.wire import Document, Failure, Message

UPGRADE_VERB = "infra.upgrade"  # of the stream door: params {version, sha256, size_bytes}, then the file
CERTIFICATE_TOPIC = "infra.certificate"  # an observation: CertificateWanted
CERTIFICATE_SECTION = "certificate"  # {certificate: PEM}
REVOKED_SECTION = "revoked"  # {serials: [hexadecimal text]}


@dataclass(frozen=True)
class Retire(Message):
    """Stop for good: forget the access, take the unit away, answer, end. Asked when the machine leaves the cloud."""

    kind: ClassVar[str] = "infra.retire"


@dataclass(frozen=True)
class ConfirmRelease(Message):
    """The release that runs on trial may stay. Rejected `release_went_back` by one that is not `version`."""

    kind: ClassVar[str] = "infra.confirm_release"
    version: str


@dataclass(frozen=True)
class CertificateWanted(Message):
    """Body of the observation CERTIFICATE_TOPIC: two thirds of the certificate's life are over; `request` is a CSR."""

    request: str
    serial: str


@dataclass(frozen=True)
class Inspect(Message):
    """Query: what is there of what the platform makes on machines. `asked` has what each part needs to know.

    Parts that an agent does not know, or that are not asked for, are left out of the answer (Inspection).
    """

    kind: ClassVar[str] = "infra.inspect"

    asked: dict[str, Document] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection(Message):
    """Answer: what was seen, by part, and the parts that could not be looked at."""

    parts: dict[str, Document] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)


@dataclass(frozen=True)
class Thing(Message):
    """Something to be set aside, or set aside already. `id` is the quarantine's name for it, `keeper` who does it."""

    id: str
    keeper: str
    body: Document = field(default_factory=dict)


@dataclass(frozen=True)
class SetAside(Message):
    """Take these things out of the way, in this order, each into the quarantine of its machine. Answer: Handled."""

    kind: ClassVar[str] = "infra.set_aside"

    things: list[Thing]


@dataclass(frozen=True)
class PutBack(Message):
    """Put these things back from the quarantine to where they were. Answer: Handled."""

    kind: ClassVar[str] = "infra.put_back"

    things: list[Thing]


@dataclass(frozen=True)
class Purge(Message):
    """Remove these things from the quarantine for good; absent is fine. Answer: Handled."""

    kind: ClassVar[str] = "infra.purge"

    things: list[Thing]


@dataclass(frozen=True)
class Handled(Message):
    """Ids of the things that were dealt with, and why the others were not."""

    done: list[str] = field(default_factory=list)
    refused: dict[str, Failure] = field(default_factory=dict)

"""What the doctor looks for on storages: files without rows, rows without files, books that do not add up."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from cloud.common.actor import Actor
from cloud.common.doctor import Finding, Kept, Look, Report, asks, check, ledger, lists
from cloud.common.text import filled
from cloud.common.wire import Document
from storage.drivers.base import AsideThing, FoundThing
from storage.messages import THING_KEEPER
from storage.models import (
    BackupStorage,
    Image,
    ImageCache,
    PrimaryStorageAttachment,
    StorageCapacity,
    Volume,
    VolumeState,
)

QUARANTINE = _("move it into the storage's quarantine")
MISSING = gettext_noop("Its file is missing on the storage.")


@asks("storage")
def places() -> dict[str, Document]:
    """The storages that each machine should look at."""
    asked: dict[str, Document] = defaultdict(lambda: {"places": []})
    fields = ("cluster__hosts__agent", "primary_storage_id", "primary_storage__kind", "primary_storage__path")
    attached = PrimaryStorageAttachment.objects.filter(cluster__hosts__agent__isnull=False).values_list(*fields)
    servers = BackupStorage.objects.exclude(agent=None).values_list("agent_id", "uuid", "kind", "path")
    for agent, uuid, kind, path in [*attached, *servers]:
        asked[str(agent)]["places"].append({"uuid": str(uuid), "kind": kind, "path": path})
    return asked


class Seen:
    """One storage as one machine sees it. `place` is how the machine knows it."""

    def __init__(self, report: Report, told: Document) -> None:
        self.report, self.place = report, told["place"]
        self.uuid = str(self.place["uuid"])
        self.things = [FoundThing(**thing) for thing in told["found"]]

    def of_kind(self, kind: str) -> Iterator[FoundThing]:
        return (thing for thing in self.things if thing.kind == kind)

    def leak(self, kind: str, resource_type: str, thing: FoundThing, detail: Any, **more: Any) -> Finding:
        return Finding(
            kind,
            resource_type,
            thing.name,
            f"{self.place['path']}: {thing.name}",
            detail,
            agent=self.report.agent,
            host=self.report.name,
            since=datetime.fromtimestamp(thing.at, UTC) if thing.at else None,
            thing={"place": self.place, "kind": thing.kind, "name": thing.name, "size_bytes": thing.size_bytes},
            **more,
        )


def storages(look: Look, *, is_image_server: bool) -> Iterator[Seen]:
    """Every storage that was looked at; those that a job is at work on are left out."""
    return (seen for seen in look.once(_storages) if (seen.place["kind"] == "imagestore") == is_image_server)


def _storages(look: Look) -> list[Seen]:
    asked = places()
    found = []
    for report, document in look.parts("storage"):
        known = asked.get(report.agent, {}).get("places", [])
        for uuid, told in document.get("places", {}).items():
            if told["place"] in known and not look.is_busy(uuid):
                found.append(Seen(report, told))
    return found


@lists("storage")
def kept(document: Document) -> Iterator[Kept]:
    for told in document.get("places", {}).values():
        for thing in (AsideThing(**each) for each in told["aside"]):
            about = {"place": told["place"], "kind": thing.kind, "name": thing.name}
            yield Kept(thing.id, THING_KEEPER, thing.kind, thing.name, about, thing.at)


def place_of(storage: Any) -> Document:
    return {"uuid": str(storage.pk), "kind": storage.kind, "path": storage.path}


# volumes


@check(
    "volume_leak",
    "leak",
    label=_("A volume's file that no volume is known for"),
    mend=QUARANTINE,
    keeper=THING_KEEPER,
    still=lambda finding: not Volume.objects.filter(pk=finding.resource_uuid).exists(),
)
def volume_leak(look: Look) -> Iterator[Finding]:
    known = _keys(Volume)
    for seen in storages(look, is_image_server=False):
        for thing in seen.of_kind("volume"):
            if thing.name not in known and not look.is_busy(thing.name):
                yield seen.leak("volume_leak", "volume", thing, _("No volume of this uuid is known."))


@check(
    "stranger_leak",
    "leak",
    label=_("A file on a storage that the platform did not make"),
    mend=QUARANTINE,
    keeper=THING_KEEPER,
)
def stranger_leak(look: Look) -> Iterator[Finding]:
    known = _keys(Volume) | _keys(Image)
    for is_image_server in (False, True):
        for seen in storages(look, is_image_server=is_image_server):
            for thing in seen.of_kind("stranger"):
                # Half-made files of what is known are their jobs' to clear away.
                stem = thing.name.rpartition("/")[2].partition(".")[0]
                if stem not in known and not look.is_busy(stem):
                    detail = _("A storage's directory is for nothing else.")
                    yield seen.leak("stranger_leak", "file", thing, detail)


def _volumes(look: Look) -> list[tuple[Seen, Any, FoundThing | None]]:
    """Volumes that should lie on the storages looked at, with their files; those that jobs are at work on left out."""
    rows = defaultdict(list)
    wanted = Volume.objects.filter(state=VolumeState.READY, host__agent__isnull=False)
    for row in wanted.only("name", "size_bytes", "instance_uuid", "state_reason", "primary_storage", "host", "project"):
        rows[row.primary_storage_id, row.host_id].append(row)
    hosts = dict(wanted.order_by().values_list("host__agent", "host").distinct())
    found = []
    for seen in storages(look, is_image_server=False):
        files = {thing.name: thing for thing in seen.of_kind("volume")}
        for row in rows.get((UUID(seen.uuid), hosts.get(UUID(seen.report.agent))), []):
            if not look.is_busy(row.pk, row.instance_uuid):
                found.append((seen, row, files.get(str(row.pk))))
    return found


def _of_row(kind: str, seen: Seen, row: Any, detail: Any, **more: Any) -> Finding:
    return Finding(
        kind,
        "volume",
        str(row.pk),
        row.name,
        detail,
        agent=seen.report.agent,
        host=seen.report.name,
        **more,
    )


def _say(reason: str, before: str) -> Any:
    def fix(finding: Finding, actor: Actor) -> None:
        Volume.objects.filter(pk=finding.resource_uuid, state_reason=before).update(state_reason=reason)

    return fix


@check(
    "volume_missing",
    "missing",
    label=_("A volume without its file"),
    mend=_("say so on the volume"),
    fix=_say(MISSING, ""),
)
def volume_missing(look: Look) -> Iterator[Finding]:
    for seen, row, file in look.once(_volumes):
        if file is None and row.state_reason != MISSING:
            detail = filled(_("Its file is not at %(path)s."), path=seen.place["path"])
            yield _of_row("volume_missing", seen, row, detail)


@check(
    "volume_found",
    "drift",
    label=_("A volume whose file is there again"),
    mend=_("say so on the volume"),
    fix=_say("", MISSING),
)
def volume_found(look: Look) -> Iterator[Finding]:
    for seen, row, file in look.once(_volumes):
        if file is not None and row.state_reason == MISSING:
            yield _of_row("volume_found", seen, row, _("It was missing, and is not any more."))


@check("volume_size", "drift", label=_("A volume of another size than its file"))
def volume_size(look: Look) -> Iterator[Finding]:
    for seen, row, file in look.once(_volumes):
        if file is not None and file.size_bytes != row.size_bytes:
            detail = filled(
                _("It has %(wanted)d bytes, its file %(found)d."), wanted=row.size_bytes, found=file.size_bytes
            )
            yield _of_row("volume_size", seen, row, detail, is_mendable=False)


def _keys(model: Any) -> set[str]:
    return {str(key) for key in model.objects.values_list("pk", flat=True)}


# books


def _promised() -> Any:
    """The books of storages, each with what is promised by its rows: `needed`."""
    same = {"primary_storage": OuterRef("primary_storage"), "host": OuterRef("host")}

    def total(model: Any) -> Any:
        found = model.objects.filter(**same).order_by().values("primary_storage")
        return Coalesce(found.annotate(total=Sum("size_bytes")).values("total"), 0)

    return StorageCapacity.objects.annotate(needed=total(Volume) + total(ImageCache))


def _differences() -> Iterable[tuple[Any, str, Any]]:
    for row in _promised().exclude(used_bytes=F("needed")).select_related("primary_storage", "host"):
        detail = filled(_("%(kept)d bytes are booked, %(needed)d are needed."), kept=row.used_bytes, needed=row.needed)
        yield row.pk, f"{row.primary_storage} @ {row.host}", detail


def _recount(key: Any) -> None:
    # Whoever promises takes this row first, and its volume's or copy's row after it.
    held = StorageCapacity.objects.select_for_update().filter(pk=key).first()
    if held is not None:
        StorageCapacity.objects.filter(pk=key).update(used_bytes=_promised().get(pk=key).needed)


ledger(
    "storage_books",
    label=_("A primary storage whose books do not add up"),
    resource_type="primary_storage",
    differences=_differences,
    recompute=_recount,
    mend=_("count again"),
)

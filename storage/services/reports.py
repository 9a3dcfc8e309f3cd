"""What agents report of storages, and what their coming and going means for them."""

from collections import defaultdict
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from cloud.common.models import Connection
from cloud.infra.models import Agent, Host
from cloud.jobs import engine
from storage.messages import CapacityReport, StorageReport
from storage.models import BackupStorage, CacheState, ImageCache, PrimaryStorage, StorageCapacity, copies, promises
from storage.services import sections
from storage.workflows.waiting import topic

KNOWN_FOR_S = 300


def note(agent: Agent, report: CapacityReport) -> None:
    """Write down what the agent of a host or an image server saw; a storage that is not its own is not heard."""
    told = _news(agent, report.storages)
    if not told:
        return
    host = Host.objects.filter(agent=agent).select_related("cluster").first()
    for one in told:
        if host is not None:
            _note_primary(agent, host, one)
        else:
            _note_images(agent, one)
    _refresh(PrimaryStorage.objects.filter(pk__in=[one.uuid for one in told]))
    for one in told:
        engine.wake(topic(one.uuid))


@transaction.atomic
def came(agent: Agent) -> None:
    """The agent is back: its storages are reachable, and it hears of the section if it never did."""
    sections.ensure(agent)
    _connect(BackupStorage.objects.filter(agent=agent), Connection.CONNECTED)
    _refresh(_of(agent))


def went(agent: Agent) -> None:
    """The agent fell silent."""
    _connect(BackupStorage.objects.filter(agent=agent), Connection.DISCONNECTED)
    _refresh(_of(agent))


def _news(agent: Agent, reports: list[StorageReport]) -> list[StorageReport]:
    """Those of the reports that tell anything: every host tells each minute, mostly what is known.

    What was written down long ago is written anew, so that `reported_at` says that the host still tells.
    """
    recent = Now() - timedelta(seconds=KNOWN_FOR_S)
    rows = StorageCapacity.objects.filter(host__agent=agent, reported_at__gt=recent)
    known = {str(row.primary_storage_id): row for row in rows}
    if not known:
        return reports
    idle: dict[str, list[tuple[str, str]]] = defaultdict(list)
    copies_there = ImageCache.objects.filter(host__agent=agent, volumes__isnull=True)
    for storage, image, state in copies_there.values_list("primary_storage", "image_uuid", "state"):
        idle[str(storage)].append((str(image), state))

    def is_known(one: StorageReport) -> bool:
        row = known.get(one.uuid)
        if row is None or row.failure != one.failure:
            return False
        numbers = (row.total_bytes, row.available_bytes, row.held_bytes)
        if not one.failure and numbers != (one.total_bytes, one.available_bytes, one.held_bytes):
            return False
        listed = set(one.cached)
        return all(image in listed and state == CacheState.READY for image, state in idle[one.uuid])

    return [one for one in reports if not is_known(one)]


def _note_primary(agent: Agent, host: Host, report: StorageReport) -> None:
    storage = PrimaryStorage.objects.filter(pk=report.uuid, clusters=host.cluster_id).first()
    if storage is None:
        return
    promises.note(storage, host, report)
    if not report.failure:
        copies.note_listed(agent, storage, host, report.cached)


def _note_images(agent: Agent, report: StorageReport) -> None:
    seen: dict[str, Any] = {"failure": report.failure, "reported_at": Now()}
    if not report.failure:
        seen |= {"total_bytes": report.total_bytes, "available_bytes": report.available_bytes}
    BackupStorage.objects.filter(pk=report.uuid, agent=agent).update(**seen)


def _of(agent: Agent) -> Any:
    return PrimaryStorage.objects.filter(clusters__hosts__agent=agent)


def _refresh(storages: Any) -> None:
    """A primary storage is connected while one host that reported it is, connecting until one ever was."""
    for storage in storages.distinct():
        hosts = storage.capacities.exclude(reported_at=None)
        if hosts.filter(host__agent__connection=Connection.CONNECTED).exists():
            connection = Connection.CONNECTED
        else:
            connection = Connection.DISCONNECTED if hosts.exists() else Connection.CONNECTING
        _connect(PrimaryStorage.objects.filter(pk=storage.pk), connection)


def _connect(rows: Any, connection: Connection) -> None:
    rows.filter(~Q(connection=connection)).update(connection=connection, connection_changed_at=Now())

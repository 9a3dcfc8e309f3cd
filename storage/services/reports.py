"""What agents report of storages, and what their coming and going means for them."""

from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from cloud.common.models import Connection
from cloud.infra.models import Agent, Host
from cloud.jobs import engine
from storage.messages import CapacityReport, StorageReport
from storage.models import BackupStorage, PrimaryStorage, copies, promises
from storage.services import sections
from storage.workflows.waiting import topic


def note(agent: Agent, report: CapacityReport) -> None:
    """Write down what the agent of a host or an image server saw; a storage that is not its own is not heard."""
    host = Host.objects.filter(agent=agent).select_related("cluster").first()
    for one in report.storages:
        if host is not None:
            _note_primary(agent, host, one)
        else:
            _note_images(agent, one)
    _refresh(PrimaryStorage.objects.filter(pk__in=[one.uuid for one in report.storages]))
    for one in report.storages:
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

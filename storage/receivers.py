"""Reactions to what agents tell and to their coming and going."""

from typing import Any

from django.dispatch import receiver

from cloud.common.relations import BLOCKS, DETACHES, LOST, STAYS, declare
from cloud.common.wire import Document
from cloud.infra import observations
from cloud.infra.models import Agent, Cluster, Host, Zone
from cloud.infra.signals import agent_connected, agent_disconnected
from storage.messages import CapacityReport
from storage.models import BackupStorage, DiskOffering, Image, ImageCache, PrimaryStorage, Volume
from storage.services import reports


@observations.on("storage.capacity")
def capacity(agent: Agent, body: Document) -> None:
    reports.note(agent, CapacityReport.from_document(body))


@receiver(agent_connected)
def connected(agent: Agent, **_more: Any) -> None:
    reports.came(agent)


@receiver(agent_disconnected)
def disconnected(agent: Agent, **_more: Any) -> None:
    reports.went(agent)


declare(Zone, PrimaryStorage, by="zone", effect=BLOCKS)
declare(Cluster, PrimaryStorage, by="clusters", effect=BLOCKS)
declare(Host, Volume, by="host", effect=BLOCKS)
declare(PrimaryStorage, Volume, by="primary_storage", effect=BLOCKS)
declare(PrimaryStorage, ImageCache, by="primary_storage", effect=LOST)
declare(BackupStorage, Image, by="backup_storage", effect=BLOCKS)
declare(Image, Volume, by="image", effect=STAYS)
declare(Image, Volume, by="image", effect=DETACHES, verb="expunge")
declare(DiskOffering, Volume, by="disk_offering", effect=DETACHES)

"""Reactions to what agents tell and to their coming and going."""

from typing import Any

from django.dispatch import receiver

from cloud.common.wire import Document
from cloud.infra import observations, usage
from cloud.infra.models import Agent, Cluster, Host, Zone
from cloud.infra.signals import agent_connected, agent_disconnected
from storage.messages import CapacityReport
from storage.models import BackupStorage, Image, PrimaryStorage, Volume
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


@usage.register
def storages(resource: Any) -> list[usage.Use]:
    """What of storage stands on a zone, a cluster, a host or an image server."""
    match resource:
        case Zone():
            return [usage.count("primary_storage", PrimaryStorage.objects.filter(zone=resource))]
        case Cluster():
            return [usage.count("primary_storage", PrimaryStorage.objects.filter(clusters=resource))]
        case Host():
            return [usage.count("volume", Volume.objects.filter(host=resource))]
        case BackupStorage():
            return [usage.count("image", Image.objects.filter(backup_storage=resource))]
    return []

"""Zones, clusters, agents and hosts for tests."""

from typing import Any

import factory
from django.db.models.functions import Now

from cloud.accounts.services import bootstrap
from cloud.common.models import Connection
from cloud.infra.models import Agent, AgentKind, Cluster, Host, HostCapacity, HostState, Zone

GIB = 1024**3


class _Infrastructure(factory.django.DjangoModelFactory):
    class Meta:
        abstract = True

    project = factory.LazyFunction(bootstrap.admin_project)


class ZoneFactory(_Infrastructure):
    class Meta:
        model = Zone

    name = factory.Sequence(lambda n: f"zone-{n}")


class ClusterFactory(_Infrastructure):
    class Meta:
        model = Cluster

    name = factory.Sequence(lambda n: f"cluster-{n}")
    zone = factory.SubFactory(ZoneFactory)


class AgentFactory(_Infrastructure):
    """An enrolled agent that has said hello."""

    class Meta:
        model = Agent

    name = factory.Sequence(lambda n: f"machine-{n}")
    kind = AgentKind.HOST
    address = factory.Sequence(lambda n: f"10.9.{n // 250}.{n % 250 + 1}")
    connection = Connection.CONNECTED
    boot_id = "boot-1"
    hello_at = Now()
    enrolled_at = Now()


class HostFactory(_Infrastructure):
    """A ready, connected host with an agent; `cpu_threads` and `memory_bytes` make its capacity too."""

    class Meta:
        model = Host
        skip_postgeneration_save = True

    name = factory.Sequence(lambda n: f"host-{n}")
    cluster = factory.SubFactory(ClusterFactory)
    agent = factory.SubFactory(AgentFactory, name=factory.SelfAttribute("..name"))
    address = factory.SelfAttribute("agent.address")
    state = HostState.READY
    connection = Connection.CONNECTED
    cpu_threads = 4
    memory_bytes = 9 * GIB

    @factory.post_generation
    def has_capacity(self: Any, create: bool, wanted: bool | None, **_: Any) -> None:
        if create and wanted is not False:
            totals = {"cpu_total": self.cpu_threads, "memory_total_bytes": self.memory_bytes}
            self.capacity = HostCapacity.objects.create(host=self, **totals)

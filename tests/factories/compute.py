"""Instances and their offerings for tests."""

import uuid
from typing import Any

import factory

from cloud.accounts.services import bootstrap
from compute.models import Instance, InstanceOffering, InstanceState, UnknownDomain
from tests.factories.infra import HostFactory

GIB = 1024**3


class InstanceOfferingFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = InstanceOffering

    name = factory.Sequence(lambda n: f"small-{n}")
    project = factory.LazyFunction(bootstrap.admin_project)
    cpu = 1
    memory_bytes = GIB


class InstanceFactory(factory.django.DjangoModelFactory):
    """A stopped instance's row alone: without volumes and NICs, it has nothing booked. `host` is where it last ran."""

    class Meta:
        model = Instance

    class Params:
        place = factory.SubFactory(HostFactory)

    name = factory.Sequence(lambda n: f"vm-{n}")
    project = factory.LazyFunction(bootstrap.admin_project)
    state = InstanceState.STOPPED
    zone = factory.SelfAttribute("place.cluster.zone")
    cluster = factory.SelfAttribute("place.cluster")
    last_host = factory.SelfAttribute("place")
    cpu = 1
    memory_bytes = GIB
    hostname = factory.SelfAttribute("name")

    @classmethod
    def running(cls, **fields: Any) -> Any:
        """One that runs on its host, its room booked there in the row only."""
        place = fields.pop("place", None) or HostFactory()
        given = {"state": InstanceState.RUNNING, "host": place, "is_reserved": True, "is_wanted_running": True}
        return cls(place=place, last_host=None, **{**given, **fields})


class UnknownDomainFactory(factory.django.DjangoModelFactory):
    """A running domain that somebody else made."""

    class Meta:
        model = UnknownDomain

    name = factory.Sequence(lambda n: f"stranger-{n}")
    project = factory.LazyFunction(bootstrap.admin_project)
    host = factory.SubFactory(HostFactory)
    domain_uuid = factory.LazyFunction(uuid.uuid4)
    state = "running"

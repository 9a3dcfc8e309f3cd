"""Messages survive their way across the wire, and take the documents of storage and network as they come."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given

from cloud.common.wire import Message
from compute import messages
from compute.messages import (
    DomainEvent,
    DomainInventory,
    DomainNic,
    DomainSpec,
    DomainSummary,
    DomainVolume,
    StartDomain,
)
from network.messages import NicAttachment
from storage.messages import VolumeSource
from tests.compute.drivers.strategies import SPECS


@given(SPECS)
def test_a_spec_comes_out_as_it_went_in(spec: DomainSpec) -> None:
    message = StartDomain(spec)
    assert StartDomain.from_document(json.loads(json.dumps(message.to_document()))) == message


def test_observations() -> None:
    event = DomainEvent("u", "n", "stopped", "shutdown")
    assert DomainEvent.from_document(event.to_document()) == event
    inventory = DomainInventory((DomainSummary("u", "n", "running", True),), "connected")
    assert DomainInventory.from_document(inventory.to_document()) == inventory


def test_volumes_and_nics_come_from_their_own_rooms() -> None:
    source = VolumeSource("u", "root", "/srv/a.qcow2", "qcow2", 1 << 30, "serial", 0)
    assert DomainVolume.from_document(asdict(source)) == DomainVolume("u", "/srv/a.qcow2", "qcow2", 1 << 30, "serial")
    plug = NicAttachment("u", "fa:00:00:00:00:01", "mb-1", 1450, "10.0.0.5", 24, "10.0.0.1", ["10.0.0.2"], "web", "l3")
    expected = DomainNic("u", "fa:00:00:00:00:01", "mb-1", 1450, "10.0.0.5", 24, "10.0.0.1", ("10.0.0.2",))
    assert DomainNic.from_document(plug.to_document()) == expected


def test_every_kind_is_told_once() -> None:
    kinds = [c.kind for c in vars(messages).values() if isinstance(c, type) and issubclass(c, Message) and c.kind]
    assert len(kinds) == len(set(kinds)) == 6
    assert all(kind.startswith("compute.") for kind in kinds)


@pytest.mark.parametrize("name", ["password", "user_data"])
def test_secrets_stay_out_of_logs(name: str) -> None:
    assert "hush" not in repr(messages.CloudInit("h", **{name: "hush"}))  # type: ignore[arg-type]

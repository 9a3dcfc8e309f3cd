"""The lab on paper."""

import ipaddress
import json
from collections import Counter
from pathlib import Path

import pytest

from launcher import instance as instances
from launcher.instance import Instance
from launcher.lab import image, machine_files, network, plan, seed
from launcher.lab.machine import Machine


def test_no_address_is_given_twice_and_each_fits_its_network() -> None:
    networks = {
        "management": plan.MANAGEMENT_NETWORK,
        "vtep": plan.VTEP_NETWORK,
        "provider": plan.PROVIDER_NETWORK,
    }
    cables = [cable for place in plan.PLACES for cable in place.cables]
    for cable in cables:
        if cable.address:
            assert ipaddress.ip_interface(cable.address).network == ipaddress.ip_network(networks[cable.bridge])
    counts = Counter(cable.address for cable in cables if cable.address)
    assert max(counts.values()) == 1
    assert {cable.bridge for cable in cables} == set(plan.BRIDGES)


def test_port_names_fit_and_differ() -> None:
    names = [network.port_name(place.name, cable.interface) for place in plan.PLACES for cable in place.cables]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15  # IFNAMSIZ


def test_a_machine_that_never_ran_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "RUN_ROOT", tmp_path)
    machine = Machine(Instance("one", tmp_path), plan.STORAGE)
    assert machine.pid() is None
    assert machine.services() == []
    machine.stop()
    machine.kill()


def test_a_pid_file_of_before_the_reboot_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "RUN_ROOT", tmp_path)
    machine = Machine(Instance("one", tmp_path), plan.STORAGE)
    machine.pid_file.parent.mkdir(parents=True)
    machine.pid_file.write_text("1 999999999\n")  # somebody lives there, but another one
    assert machine.pid() is None
    machine.pid_file.write_text("")
    assert machine.pid() is None


def test_seed_document_tells_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "DATA_ROOT", tmp_path)
    instance = Instance("one", tmp_path)
    for machine in plan.MACHINES:
        folder = machine_files.folder(instance, machine)
        folder.mkdir(parents=True)
        (folder / "root-password").write_text(f"secret-of-{machine.name}\n")
    www = tmp_path / "one/lab/outside/www"
    www.mkdir(parents=True)
    (www / image.NAME).write_bytes(b"12345")
    (www / f"{image.NAME}.sha256").write_text(f"abc  {image.NAME}\n")
    instance.ssh_key.parent.mkdir(parents=True)
    instance.ssh_key.with_suffix(".pub").write_text("ssh-ed25519 AAAA\n")

    document = json.loads(json.dumps(seed.document(instance)))

    assert [machine["name"] for machine in document["machines"]] == ["host-1", "host-2", "storage"]
    assert document["machines"][0] == {
        "name": "host-1",
        "kind": "host",
        "address": "10.99.0.11",
        "vtep_address": "10.99.1.11",
        "provider_interface": "eth2",
        "ssh_port": 22,
        "username": "root",
        "password": "secret-of-host-1",
    }
    assert document["image"] == {
        "name": "mica-guest",
        "url": "http://203.0.113.1/mica-guest.qcow2",
        "sha256": "abc",
        "size_bytes": 5,
    }

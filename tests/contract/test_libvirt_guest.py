"""The libvirt driver with the lab's guest in it: it boots, speaks, shows itself, and goes without a trace."""

import dataclasses
import shutil
import socket
import subprocess
import time
import uuid as uuids
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from cloud.common.driver import NotFound, Rejected, Transient
from compute.drivers.libvirt.domain_xml import Place, build
from compute.messages import CloudInit, DomainNic, DomainSpec, DomainVolume
from launcher.guest.build import build as build_image
from launcher.instance import CACHE
from tests.contract.libvirt_machine import BRIDGE, LibvirtMachine
from tests.contract.worlds import LibvirtWorld

pytestmark = pytest.mark.lab

BOOT_S = 120.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest image: the newest that the launcher has built here, else a fresh one."""
    built = sorted((CACHE / "guest").glob("*/*.qcow2"), key=lambda path: path.stat().st_mtime)
    if built:
        return built[-1]
    path = tmp_path_factory.mktemp("image") / "guest.qcow2"
    build_image(path)
    return path


@pytest.fixture
def world(libvirt_machine: LibvirtMachine, tmp_path: Path) -> Iterator[LibvirtWorld]:
    made = LibvirtWorld(libvirt_machine, tmp_path)
    yield made
    made.close()


@pytest.fixture
def spec(world: LibvirtWorld, image: Path) -> DomainSpec:
    disk = world.machine.folder / "volumes" / f"{uuids.uuid4()}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, disk], check=True)
    return DomainSpec(
        uuid=str(uuids.uuid4()),
        name="hello",
        cpu=1,
        memory_bytes=128 * MIB,
        project="11111111-1111-4111-8111-111111111111",
        volumes=(DomainVolume(str(uuids.uuid4()), str(disk)),),
        nics=(
            DomainNic(str(uuids.uuid4()), "fa:00:00:00:00:07", BRIDGE, 1450, "10.1.0.5", 24, "10.1.0.1", ("10.1.0.2",)),
        ),
        seed=CloudInit("hello-1", ssh_keys=("ssh-ed25519 AAAA test",), password="it's", network="static"),
    )


def begin(world: LibvirtWorld, spec: DomainSpec) -> None:
    """Start it where its bridge is."""
    assert world.machine.in_network(lambda: world.hypervisor.start(spec)) == "running"


def until(condition: Callable[[], bool], limit_s: float = BOOT_S) -> None:
    """A guest in its boot announces nothing: looked at five times a second."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def agent_answers(world: LibvirtWorld, spec: DomainSpec) -> bool:
    return world.hypervisor.guest_info(spec.uuid).agent_answers


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_guest_from_start_to_end(world: LibvirtWorld, spec: DomainSpec, machine: str) -> None:
    spec = dataclasses.replace(spec, machine=machine)  # type: ignore[arg-type]
    begin(world, spec)

    with socket.socket(socket.AF_UNIX) as screen:
        screen.connect(str(world.hypervisor.vnc_socket(spec.uuid)))
        assert screen.recv(12).startswith(b"RFB 003.")
    assert world.hypervisor.vnc_socket(spec.uuid).parent.stat().st_mode & 0o777 == 0o700

    until(lambda: agent_answers(world, spec))
    info = world.hypervisor.guest_info(spec.uuid)
    assert info.hostname == "hello-1"
    assert "10.1.0.5" in info.addresses
    assert info.os

    with socket.socket(socket.AF_UNIX) as console:
        console.settimeout(BOOT_S)
        console.connect(str(world.hypervisor.serial_socket(spec.uuid)))
        console.sendall(b"\r")
        said = b""
        while b"login" not in said:
            said += console.recv(1000)

    stats = next(d for d in world.hypervisor.stats() if d.uuid == spec.uuid)
    assert stats.disks[0].read_bytes > MIB
    assert [nic.nic for nic in stats.nics] == [spec.nics[0].uuid]
    until(lambda: any(d.memory_free_bytes for d in world.hypervisor.stats()), 30)

    assert world.hypervisor.stop(spec.uuid, grace_s=60) == "stopped"
    assert world.eventually(lambda: world.heard(spec.uuid)[-1:] == [("stopped", "shutdown")])
    world.hypervisor.remove(spec.uuid)
    left = [path for path in world.machine.folder.rglob(f"*{spec.uuid}*") if "log" not in path.parts]
    assert left == []


def test_a_graceful_reboot(world: LibvirtWorld, spec: DomainSpec) -> None:
    begin(world, spec)
    until(lambda: agent_answers(world, spec))
    assert world.machine.in_network(lambda: world.hypervisor.reboot(spec.uuid, grace_s=60)) == "running"
    until(lambda: not agent_answers(world, spec), 30)
    until(lambda: agent_answers(world, spec))


def test_a_start_that_cannot_be_leaves_nothing(world: LibvirtWorld, spec: DomainSpec) -> None:
    gone = dataclasses.replace(spec, volumes=(DomainVolume(str(uuids.uuid4()), "/nowhere/a.qcow2"),))
    with pytest.raises(Rejected) as missing:
        begin(world, gone)
    assert missing.value.code == "volume_missing"
    unplugged = dataclasses.replace(spec, nics=(dataclasses.replace(spec.nics[0], bridge="mb-none"),))
    with pytest.raises(Transient) as waiting:
        begin(world, unplugged)
    assert waiting.value.code == "bridge_missing"
    with pytest.raises(NotFound):
        world.hypervisor.state(spec.uuid)
    assert list(world.machine.folder.rglob(f"*{spec.uuid}*")) == []


def test_two_domains_never_write_one_volume(world: LibvirtWorld, spec: DomainSpec) -> None:
    begin(world, spec)
    thief = dataclasses.replace(spec, uuid=str(uuids.uuid4()), nics=())
    with pytest.raises(Rejected) as refused:
        begin(world, thief)
    assert refused.value.code == "volume_in_use"
    with pytest.raises(NotFound):
        world.hypervisor.state(thief.uuid)
    assert world.hypervisor.state(spec.uuid) == "running"


def test_no_console_of_what_does_not_run(world: LibvirtWorld, spec: DomainSpec) -> None:
    begin(world, spec)
    world.hypervisor.stop(spec.uuid, is_forced=True)
    for socket_of in (world.hypervisor.vnc_socket, world.hypervisor.serial_socket):
        with pytest.raises(Rejected) as refused:
            socket_of(spec.uuid)
        assert refused.value.code == "domain_not_running"


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_libvirt_takes_what_real_servers_are_asked(world: LibvirtWorld, spec: DomainSpec, machine: str) -> None:
    spec = dataclasses.replace(spec, machine=machine, cpu=4)  # type: ignore[arg-type]
    folder = world.machine.folder
    seed = folder / "seed.iso"
    shutil.copy(spec.volumes[0].path, seed)
    connection = libvirt.open(world.machine.uri)
    place = Place("kvm", folder / "v.sock", folder / "s.sock", seed)
    domain = connection.defineXMLFlags(build(spec, place), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    domain.undefine()
    connection.close()

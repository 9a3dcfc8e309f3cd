"""What the libvirt driver reads: statistics, guest information, capabilities, errors; and how it looks at volumes."""

import os
from pathlib import Path
from typing import Any

import libvirt
import pytest

from cloud.common import driver
from compute.drivers.base import DiskStats, NicStats
from compute.drivers.libvirt import errors, guest, host, lifecycle, stats
from compute.drivers.libvirt.domain_xml import DiskPlace
from compute.drivers.libvirt.metadata import Mark, tap_name
from compute.messages import DomainSpec, DomainVolume, GuestInfo

NIC = "9c9e6679-7425-40de-944b-e07fc1f90ae7"
RECORD: dict[str, Any] = {
    "cpu.time": 6_990_000_000,
    "vcpu.current": 2,
    "vcpu.maximum": 2,
    "vcpu.0.time": 5_000_000_000,
    "vcpu.1.time": 770_000_000,
    "balloon.current": 131072,
    "balloon.unused": 60000,
    "balloon.usable": 70000,
    "balloon.rss": 256444,
    "net.count": 2,
    "net.0.name": tap_name(NIC),
    "net.0.rx.bytes": 926, "net.0.rx.pkts": 11, "net.0.rx.errs": 1,
    "net.0.tx.bytes": 586, "net.0.tx.pkts": 7, "net.0.tx.errs": 2,
    "net.1.name": "vnet3",
    "block.count": 2,
    "block.0.name": "vda", "block.0.backingIndex": 2,
    "block.0.rd.reqs": 44, "block.0.rd.bytes": 196096, "block.0.wr.reqs": 3, "block.0.wr.bytes": 4096,
    "block.1.name": "hda", "block.1.rd.reqs": 1, "block.1.rd.bytes": 2048,
}  # fmt: skip


def failure(code: int, message: str = "it failed", domain: int = libvirt.VIR_FROM_QEMU) -> libvirt.libvirtError:
    error = libvirt.libvirtError(message)
    error.err = (code, domain, message, 2, None, None, None, -1, -1)
    return error


def test_stats_of_a_domain() -> None:
    found = stats.parse("u", RECORD, Mark("web", "p", {tap_name(NIC): NIC}))
    assert (found.uuid, found.project, found.cpu_count, found.cpu_seconds) == ("u", "p", 2, 6.99)
    assert found.vcpu_seconds == {0: 5.0, 1: 0.77}
    assert found.memory_total_bytes == 128 << 20
    assert found.memory_free_bytes == 70000 * 1024
    assert found.memory_resident_bytes == 256444 * 1024
    assert found.disks == (DiskStats("vda", 196096, 44, 4096, 3),), "the seed is no disk of the user's"
    assert found.nics == (NicStats(NIC, 926, 11, 1, 586, 7, 2), NicStats("vnet3"))


def test_what_libvirt_does_not_say_is_not_known() -> None:
    found = stats.parse("u", {"state.state": 1}, Mark("web", "p"))
    assert (found.cpu_count, found.cpu_seconds, found.memory_total_bytes, found.memory_free_bytes) == (None,) * 4
    assert (found.disks, found.nics, found.vcpu_seconds) == ((), (), {})


def test_guest_info_leaves_out_what_is_everybodys() -> None:
    answer = {
        "hostname": "web", "os.pretty-name": "Debian 12", "if.count": 2,
        "if.0.addr.count": 1, "if.0.addr.0.addr": "127.0.0.1",
        "if.1.addr.count": 3, "if.1.addr.0.addr": "10.1.0.5", "if.1.addr.1.addr": "fe80::1", "if.1.addr.2.addr": "junk",
    }  # fmt: skip
    assert guest.parse(answer) == GuestInfo(True, "web", ("10.1.0.5",), "Debian 12")
    assert guest.parse({}) == GuestInfo(True)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (failure(libvirt.VIR_ERR_NO_DOMAIN), driver.NotFound, "domain_not_found"),
        (failure(libvirt.VIR_ERR_NO_CONNECT), driver.Transient, "hypervisor_unreachable"),
        (
            failure(libvirt.VIR_ERR_SYSTEM_ERROR, domain=libvirt.VIR_FROM_RPC),
            driver.Transient,
            "hypervisor_unreachable",
        ),
        (failure(libvirt.VIR_ERR_OPERATION_TIMEOUT), driver.Transient, "hypervisor_busy"),
        (failure(libvirt.VIR_ERR_CONFIG_UNSUPPORTED), driver.Unsupported, "hypervisor_cannot"),
        (failure(libvirt.VIR_ERR_OPERATION_INVALID), driver.Rejected, "domain_state"),
        (
            failure(libvirt.VIR_ERR_INTERNAL_ERROR, "cannot set up guest memory 'pc.ram': Cannot allocate memory"),
            driver.Rejected,
            "host_out_of_memory",
        ),
        (
            failure(libvirt.VIR_ERR_INTERNAL_ERROR, 'process exited: Failed to get "write" lock'),
            driver.Rejected,
            "volume_in_use",
        ),
        (failure(libvirt.VIR_ERR_INTERNAL_ERROR), driver.DriverError, "hypervisor_failed"),
    ],
)
def test_errors_are_translated(error: libvirt.libvirtError, kind: type[driver.DriverError], code: str) -> None:
    with pytest.raises(driver.DriverError) as raised, errors.translated():
        raise error
    assert type(raised.value) is kind
    assert raised.value.code == code
    assert raised.value.__cause__ is error


def test_every_event_that_changes_a_state_has_words() -> None:
    assert lifecycle.event(libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) == (
        "stopped",
        "shutdown",
    )
    assert lifecycle.event(libvirt.VIR_DOMAIN_EVENT_DEFINED, 0) is None
    assert lifecycle.event(libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, 0) is None
    assert lifecycle.event(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 99) == ("paused", "detail_99")
    assert lifecycle.state(999) == "unknown"


def test_capabilities() -> None:
    text = """<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model>
    <baselabel type='kvm'>+64055:+108</baselabel></secmodel></host>
    <guest><arch name='i686'><emulator>/no</emulator></arch></guest>
    <guest><arch name='x86_64'><emulator>/usr/bin/qemu-kvm</emulator></arch></guest></capabilities>"""
    assert host.qemu_user(text) == (64055, 108)
    assert host.emulator(text) == "/usr/bin/qemu-kvm"
    assert host.qemu_user("<capabilities><host/></capabilities>") == (0, 0)


def test_a_volume_is_looked_at_before_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    path.write_bytes(b"")
    assert host.disk_place(DomainVolume("v", str(path))).kind == "file"
    assert host.disk_place(DomainVolume("v", "/proc/self/status")) == DiskPlace("file", "writeback"), (
        "no O_DIRECT there"
    )
    with pytest.raises(driver.Rejected) as missing:
        host.disk_place(DomainVolume("v", str(tmp_path / "b")))
    assert missing.value.code == "volume_missing"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_qemu_reaches_its_own_files_and_lists_nothing(tmp_path: Path) -> None:
    state, run = tmp_path / "state", tmp_path / "run"
    for directory in (state, run):
        directory.mkdir(mode=0o700)
    files = host.HostFiles(state, run)
    files.give_to((64055, 108))
    files.prepare(DomainSpec("u", "n", 1, 1024), "qemu")
    for directory in (state, run, state / "seeds"):
        found = directory.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 108, 0o710)
    for directory in (run / "vnc", run / "serial"):
        found = directory.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (64055, 108, 0o700)


@pytest.mark.parametrize("uuid", ["../../etc/passwd", "", "x", "7c9e6679-7425-40de-944b-e07fc1f90ae7/.."])
def test_a_uuid_never_names_another_file(uuid: str) -> None:
    with pytest.raises(driver.Rejected) as refused:
        host.canonical(uuid)
    assert refused.value.code == "invalid_uuid"

"""The KVM probe: it believes a guest that booted, and nothing else."""

import json
import stat
from pathlib import Path

import pytest

from compute.drivers.libvirt import boot_sector, kvm

QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.fixture
def emulator(tmp_path: Path) -> Path:
    """A QEMU that does as `behave` says."""
    return tmp_path / "qemu"


def behave(emulator: Path, script: str) -> str:
    emulator.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo "QEMU emulator version 9.1.2 (Debian)"; exit; }\n' + script
    )
    emulator.chmod(emulator.stat().st_mode | stat.S_IXUSR)
    return str(emulator)


def probe(emulator: Path, tmp_path: Path, device: str = "/dev/null") -> kvm.KvmProbe:
    return kvm.KvmProbe(str(emulator), tmp_path / "state" / "kvm.json", Path(device))


def test_the_boot_sector_is_one() -> None:
    image = boot_sector.image()
    assert len(image) == 512
    assert image.endswith(b"\x55\xaa")
    assert boot_sector.GREETING in image


@pytest.mark.lab
def test_the_guest_boots_for_real() -> None:
    assert kvm.boot(QEMU, "tcg").is_usable


@pytest.mark.lab
def test_what_is_found_of_kvm_here_has_a_reason(tmp_path: Path) -> None:
    finding = kvm.KvmProbe(QEMU, tmp_path / "kvm.json").finding()
    assert finding.why
    assert finding.is_usable == ("booted under kvm" in finding.why)


def test_no_device(emulator: Path, tmp_path: Path) -> None:
    behave(emulator, "echo MICA")
    assert probe(emulator, tmp_path, "/dev/no-kvm").finding() == kvm.Finding(
        False, "There is no /dev/no-kvm on this machine: guests are emulated."
    )


def test_a_guest_that_greets_is_believed(emulator: Path, tmp_path: Path) -> None:
    behave(emulator, "printf MICA; exit 1")
    assert probe(emulator, tmp_path).finding().is_usable


def test_a_qemu_that_fails_is_quoted(emulator: Path, tmp_path: Path) -> None:
    behave(emulator, "echo 'failed to set MSR 0x10a' >&2; exit 134")
    finding = probe(emulator, tmp_path).finding()
    assert not finding.is_usable
    assert "failed to set MSR 0x10a" in finding.why


def test_a_guest_that_gets_nowhere(emulator: Path) -> None:
    finding = kvm.boot(behave(emulator, "exec tail -f /dev/null"), "kvm", time_limit_s=0.2)
    assert finding == kvm.Finding(False, "A test guest did not boot under kvm within 0.2 s.")


def test_the_finding_is_remembered_for_this_boot_and_this_qemu(emulator: Path, tmp_path: Path) -> None:
    behave(emulator, "printf MICA")
    assert probe(emulator, tmp_path).finding().is_usable
    behave(emulator, "exit 1")
    assert probe(emulator, tmp_path).finding().is_usable, "found before"
    cache = tmp_path / "state" / "kvm.json"
    cache.write_text(json.dumps(json.loads(cache.read_text()) | {"key": "another boot"}))
    assert not probe(emulator, tmp_path).finding().is_usable
    cache.write_text("broken")
    assert not probe(emulator, tmp_path).finding().is_usable


def test_version(emulator: Path) -> None:
    assert kvm.version(behave(emulator, "")) == "9.1.2"
    assert kvm.version("/no/qemu") == ""

"""Whether guests run under KVM on this machine: believed only after one did.

/dev/kvm may open and libvirt may advertise kvm where no guest ever gets anywhere (a machine that is itself virtual). So
a tiny guest is booted with the CPU that real ones would get. The finding holds for one boot of the machine and one
QEMU.
"""

import json
import os
import subprocess
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from compute.drivers.libvirt import boot_sector

TIME_LIMIT_S = 5.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Finding:
    """`why` says in a sentence how `is_usable` was found."""

    is_usable: bool
    why: str


class KvmProbe:
    """Finds out once and remembers, in the file `cache` also across restarts of the agent."""

    def __init__(self, emulator: str, cache: Path, device: Path = Path("/dev/kvm")) -> None:
        self._emulator = emulator
        self._cache = cache
        self._device = device
        self._lock = threading.Lock()
        self._finding: Finding | None = None

    def finding(self) -> Finding:
        """The finding; the first call may take TIME_LIMIT_S seconds."""
        with self._lock:
            if self._finding is None:
                self._finding = self._recall() or self._find()
            return self._finding

    def _find(self) -> Finding:
        if not self._device.exists():
            return Finding(False, f"There is no {self._device} on this machine: guests are emulated.")
        if not os.access(self._device, os.R_OK | os.W_OK):
            return Finding(False, f"{self._device} may not be opened: guests are emulated.")
        finding = boot(self._emulator, "kvm")
        self._remember(finding)
        return finding

    def _recall(self) -> Finding | None:
        try:
            document = json.loads(self._cache.read_text())
            if document["key"] == self._key():
                return Finding(bool(document["is_usable"]), str(document["why"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _remember(self, finding: Finding) -> None:
        document = {"key": self._key(), **asdict(finding)}
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._cache.with_suffix(".new")
            fresh.write_text(json.dumps(document))
            os.replace(fresh, self._cache)
        except OSError:
            pass  # found again next time: a cache is no reason to fail

    def _key(self) -> str:
        return f"{BOOT_ID.read_text().strip()} {version(self._emulator)}"


def version(emulator: str) -> str:
    """The version of a QEMU binary, as `7.2.22`; empty when it cannot be run."""
    try:
        done = subprocess.run([emulator, "--version"], capture_output=True, text=True, timeout=TIME_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = done.stdout.partition("\n")[0].split()
    return words[3] if len(words) > 3 else ""


def boot(emulator: str, accelerator: str, time_limit_s: float = TIME_LIMIT_S) -> Finding:
    """Boot the probe guest under `kvm` or `tcg` and see whether it gets to its greeting in time."""
    cpu = "host" if accelerator == "kvm" else "qemu64"
    with tempfile.TemporaryDirectory(prefix="mica-kvm-") as name:
        disk = Path(name, "sector.img")
        disk.write_bytes(boot_sector.image())
        # QEMU aborts where the host refuses a register: that is an answer, not worth a core file.
        command = [
            "prlimit", "--core=0", emulator, "-accel", accelerator, "-cpu", cpu, "-machine", "pc", "-m", "16",
            "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-device", f"isa-debug-exit,iobase={boot_sector.EXIT_PORT:#x},iosize=1",
            "-drive", f"file={disk},format=raw,if=ide,snapshot=on",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            return Finding(False, f"A test guest did not boot under {accelerator} within {time_limit_s:g} s.")
        except OSError as error:
            return Finding(False, f"{emulator} cannot be run: {error.strerror}.")
    if boot_sector.GREETING in done.stdout:
        return Finding(True, f"A test guest booted under {accelerator}.")
    said = " ".join(done.stderr.decode(errors="replace").split())[:300]
    return Finding(False, f"A test guest did not boot under {accelerator}. QEMU said: {said or 'nothing'}")

"""A guest under QEMU's emulation with a NoCloud seed, spoken to through its agent: for tests of the image alone."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

BOOT_TIMEOUT_S = 120


class Line:
    """JSON documents over a unix socket, a line each: the guest agent's and QMP's way to speak."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.pending = b""

    def send(self, verb: str, **arguments: Any) -> None:
        self.socket.sendall(json.dumps({"execute": verb, "arguments": arguments}).encode() + b"\n")

    def receive(self, timeout_s: float) -> dict[str, Any]:
        self.socket.settimeout(timeout_s)
        while b"\n" not in self.pending:
            self.pending += self.socket.recv(65536)
        document, _, self.pending = self.pending.partition(b"\n")
        return dict(json.loads(document.lstrip(b"\xff")))

    def ask(self, verb: str, **arguments: Any) -> Any:
        self.send(verb, **arguments)
        while "return" not in (answer := self.receive(30)):
            assert "error" not in answer, answer
        return answer["return"]


class Guest:
    """`with Guest(disk, seed, folder) as guest`: booted, agent answering. Cards get MAC addresses …:56, …:57."""

    def __init__(
        self, disk: Path, seed: dict[str, str], folder: Path, *, machine: str = "pc", cdrom: str = "ide"
    ) -> None:
        folder.mkdir()
        (folder / "seed").mkdir()
        for name, text in seed.items():
            (folder / "seed" / name).write_text(text)
        iso = folder / "seed.iso"
        subprocess.run(["genisoimage", "-quiet", "-J", "-r", "-V", "cidata", "-o", iso, folder / "seed"], check=True)
        drive = f"if=none,id=seed,file={iso},format=raw,readonly=on"
        cdroms = {
            "ide": ["-drive", drive + ",media=cdrom", "-device", "ide-cd,drive=seed"],
            "scsi": ["-device", "virtio-scsi-pci,id=bus", "-drive", drive, "-device", "scsi-cd,drive=seed,bus=bus.0"],
            "virtio": ["-drive", drive, "-device", "virtio-blk-pci,drive=seed"],
        }
        self.folder = folder
        self.command = [
            "qemu-system-x86_64", "-machine", f"{machine},accel=tcg", "-m", "128", "-nodefaults", "-display", "none",
            "-serial", f"file:{folder / 'serial'}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=ga,path={folder / 'ga'},server=on,wait=off",
            "-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
            "-drive", f"if=none,id=root,file={disk}", "-device", "virtio-blk-pci,drive=root,bootindex=1",
            "-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56",
            "-netdev", "user,id=n1,restrict=on", "-device", "virtio-net-pci,netdev=n1,mac=52:54:00:12:34:57",
            "-pidfile", str(folder / "pid"), *cdroms[cdrom],
        ]  # fmt: skip

    def __enter__(self) -> Self:
        # -daemonize returns when the sockets are there: nothing to wait for.
        subprocess.run([*self.command, "-daemonize"], check=True, capture_output=True)
        self.process = os.pidfd_open(int((self.folder / "pid").read_text()))
        try:
            self.control = Line(self.folder / "qmp")
            self.control.receive(10)
            self.control.ask("qmp_capabilities")
            self.agent = Line(self.folder / "ga")
            self._await_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _await_agent(self) -> None:
        """The port's buffer keeps the question until the agent reads it; its answer is the event we wait for."""
        self.agent.send("guest-sync-delimited", id=7)
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while self.agent.receive(deadline - time.monotonic()).get("return") != 7:
            continue

    def run(self, script: str) -> str:
        """Run a shell script in the guest; what it printed on both streams, stripped."""
        started = self.agent.ask(
            "guest-exec", path="/bin/sh", arg=["-c", f"exec 2>&1\n{script}"], **{"capture-output": True}
        )
        deadline = time.monotonic() + 60
        while not (state := self.agent.ask("guest-exec-status", pid=started["pid"]))["exited"]:
            assert time.monotonic() < deadline, f"{script} does not end"
        return base64.b64decode(state.get("out-data", "")).decode().strip()

    def power_off(self) -> None:
        """Press the power button; returns when QEMU has ended."""
        self.control.send("system_powerdown")
        assert self._has_ended(within_s=60), "the guest does not power off"

    def _has_ended(self, within_s: float) -> bool:
        return bool(select.select([self.process], [], [], within_s)[0])  # a pidfd is readable once its process ended

    def __exit__(self, *_: object) -> None:
        if not self._has_ended(within_s=0):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)
            self._has_ended(within_s=30)
        os.close(self.process)

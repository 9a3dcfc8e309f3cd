"""qemu-img, called with care: formats are always said, never probed, and a hostile image gets few resources.

Source: qemu-img(1), prlimit(1).
"""

import json
import os
import re
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cloud.common.driver import Rejected, Transient
from storage.drivers.base import Watch

_LIMITS = ("prlimit", "--as=2147483648", "--cpu=60")
_INFO_TIMEOUT_S = 90.0
_LOOK_S = 1.0
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


@dataclass(frozen=True)
class Info:
    """What qemu-img says of a file. `backing` is the path it names, `data_file` that of an external data file."""

    format: str
    size_bytes: int
    backing: str | None
    data_file: str | None
    is_encrypted: bool


def info(path: Path, form: str, watch: Watch | None = None) -> Info:
    """Look at one file, without opening what it stands on. Raises Rejected `image_broken`; Aborted."""
    output = _run([*_LIMITS, "qemu-img", "info", "-U", "-f", form, "--output=json", _plain(path)], watch)
    try:
        found = json.loads(output)
        special = found.get("format-specific", {}).get("data", {})
        return Info(
            format=found["format"],
            size_bytes=int(found["virtual-size"]),
            backing=found.get("backing-filename"),
            data_file=special.get("data-file"),
            is_encrypted=bool(found.get("encrypted") or special.get("encrypt")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Rejected("image_broken", "qemu-img does not understand the image.") from error


def create(path: Path, size_bytes: int, backing: Path | None = None) -> None:
    """Make a qcow2 of this virtual size, empty or as an overlay on the qcow2 `backing`."""
    base = ["-F", "qcow2", "-b", str(backing)] if backing else []
    _run(["qemu-img", "create", "-q", "-f", "qcow2", *base, _plain(path), str(size_bytes)])


def convert(source: Path, form: str, target: Path, watch: Watch) -> None:
    """Copy `source`, read as `form`, to a plain qcow2, telling its progress. Raises Aborted."""
    command = ["qemu-img", "convert", "-p", "-f", form, "-O", "qcow2", "-W", "-m", "4", _plain(source), _plain(target)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True,
        env=_environment(),
    ) as process:  # fmt: skip
        try:
            _follow(process, source.stat().st_size, watch)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        errors = process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
        if process.wait():
            raise _translated(errors)


def _follow(process: "subprocess.Popen[bytes]", size_bytes: int, watch: Watch) -> None:
    """Read the progress that qemu-img prints until it ends, looking at the abort token each second."""
    output: IO[bytes] | None = process.stdout
    assert output is not None
    looked_at = 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            text = b""
            if selector.select(_LOOK_S):
                text = os.read(output.fileno(), 65536)
                if not text:
                    return
            if percents := _PERCENT.findall(text):
                watch.progress(int(size_bytes * float(percents[-1]) / 100), size_bytes, "converting")
            if time.monotonic() - looked_at >= _LOOK_S:
                looked_at = time.monotonic()
                watch.check_aborted()


def _run(command: list[str], watch: Watch | None = None) -> bytes:
    """What the command printed; its abort token is looked at each second."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    deadline = time.monotonic() + _INFO_TIMEOUT_S
    try:
        with subprocess.Popen(command, **pipes, env=_environment()) as process:  # type: ignore[call-overload]
            try:
                output, errors = _wait(process, deadline, watch)
            except BaseException:
                process.kill()
                raise
    except FileNotFoundError as error:
        raise Rejected("qemu_img_missing", f"{error.filename} is not installed on this machine.") from error
    if process.returncode:
        raise _translated(errors.decode("utf-8", "replace"))
    return output


def _wait(process: "subprocess.Popen[bytes]", deadline: float, watch: Watch | None) -> tuple[bytes, bytes]:
    while True:
        try:
            return process.communicate(timeout=_LOOK_S)
        except subprocess.TimeoutExpired as error:
            if watch is not None:
                watch.check_aborted()
            if time.monotonic() >= deadline:
                raise Transient("qemu_img_slow", "qemu-img did not answer in time.") from error


def _translated(errors: str) -> Rejected | Transient:
    text = " ".join(errors.split())[:400]
    if "No space left" in text or "Disk quota" in text:
        return Rejected("storage_full", f"No room is left on the storage: {text}")
    if "Failed to get" in text and "lock" in text:
        return Transient("image_busy", f"The file is in use: {text}")
    return Rejected("image_broken", f"qemu-img refuses the image: {text}")


def _plain(path: Path) -> str:
    """The path so that qemu never reads a protocol (`nbd:…`, `json:…`) out of it."""
    return f"file:{path}"


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

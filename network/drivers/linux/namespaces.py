"""Network namespaces by name, as ip-netns(8) keeps them: /run/netns/<name> is a bind mount of the namespace."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from cloud.common.driver import DriverError, NotFound, Transient
from network.drivers.linux.errors import translate

P = ParamSpec("P")
R = TypeVar("R")

PLACE = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def named(prefix: str) -> set[str]:
    """Names that begin with the prefix."""
    return {entry.name for entry in PLACE.iterdir() if entry.name.startswith(prefix)} if PLACE.is_dir() else set()


def is_alive(name: str) -> bool:
    """Whether the name is a namespace, and not the empty file that an interrupted making or a reboot leaves."""
    try:
        return os.stat(PLACE / name).st_dev != os.stat(PLACE).st_dev
    except FileNotFoundError:
        return False


def make(name: str) -> None:
    """Make a namespace with its loopback up. Raises Transient."""
    if (PLACE / name).exists() and not is_alive(name):
        (PLACE / name).unlink()
    _ip("netns", "add", name)
    _ip("-n", name, "link", "set", "lo", "up")


def remove(name: str) -> None:
    """Remove a namespace and all that is in it; absent is fine."""
    if is_alive(name):
        _ip("netns", "del", name)
    (PLACE / name).unlink(missing_ok=True)


def inside(name: str, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `act` in a thread that has entered the namespace, and return what it returned.

    Sockets made there stay in the namespace; the thread ends with the call. Raises NotFound when there is no such
    namespace.
    """
    result: list[R] = []
    failure: list[BaseException] = []

    def entered() -> None:
        try:
            enter(name)
            result.append(act(*args, **kwargs))
        except BaseException as error:  # told in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=entered, name=f"in {name}", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def enter(name: str) -> None:
    """Move the calling thread into the namespace (setns(2)); Python has `os.setns` only from 3.12."""
    if not is_alive(name):
        raise NotFound("namespace_missing", f"there is no network namespace {name}")
    handle = os.open(PLACE / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise translate(OSError(number, os.strerror(number)), f"enter the network namespace {name}")
    finally:
        os.close(handle)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)
    except FileNotFoundError as error:
        raise DriverError("iproute2_missing", "the command ip (iproute2) is not installed") from error
    except subprocess.SubprocessError as error:
        text = (getattr(error, "stderr", "") or str(error)).strip()
        raise Transient("namespace_failed", f"ip {' '.join(words)}: {text}") from error

"""A libvirtd of a test's own: private mounts, network and processes, so that it meets no other and leaves nothing."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psutil

T = TypeVar("T")

PRIVATE = {
    "etc": "/etc/libvirt",
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
DAEMON_CONFIG = """\
listen_tls = 0
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
"""
QEMU_CONFIG = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
seccomp_sandbox = 0
"""
BRIDGE = "br-test"
CLONE_NEWNET = 0x40000000


class LibvirtMachine:
    """A machine with libvirtd and a bridge BRIDGE. `folder` is short (socket paths are limited) and shared with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mica-lv-"))
        for name in PRIVATE:
            (self.folder / name).mkdir()
        (self.folder / "etc/libvirtd.conf").write_text(DAEMON_CONFIG)
        (self.folder / "etc/qemu.conf").write_text(QEMU_CONFIG)
        users = "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n"
        (self.folder / "passwd").write_text(_without("/etc/passwd") + users)
        (self.folder / "group").write_text(_without("/etc/group") + "libvirt-qemu:x:64055:\n")
        (self.folder / "volumes").mkdir()
        self._init: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={quote(str(self.folder / 'run/libvirt-sock'))}"

    def start(self) -> None:
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private", "--"]
        self._init = subprocess.Popen([*command, sys.executable, __file__, str(self.folder)], stdin=subprocess.DEVNULL)
        _wait(lambda: (self.folder / "run/libvirt-sock").exists(), "libvirtd's socket")

    def stop(self) -> None:
        if self._init is not None:
            self._init.kill()
            self._init.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_daemon(self) -> None:
        """kill -9 of libvirtd, which init starts anew; domains live on."""
        self._process("libvirtd").kill()

    def qemu_pid(self, uuid: str) -> int:
        """The process of a running domain."""
        return self._process("qemu-system", uuid).pid

    def _process(self, name: str, argument: str = "") -> psutil.Process:
        assert self._init is not None
        for process in psutil.Process(self._init.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith(name) and argument in " ".join(process.cmdline()):
                    return process
        raise LookupError(f"{name} {argument}")

    def in_network(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread that is in the machine's network."""
        pid = self._process("libvirtd").pid
        result: list[Any] = []

        def work() -> None:
            try:
                with open(f"/proc/{pid}/ns/net") as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                result.append((True, function()))
            except BaseException as error:
                result.append((False, error))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        is_well, value = result[0]
        if not is_well:
            raise value
        return value  # type: ignore[no-any-return]


def _without(path: str) -> str:
    return "".join(f"{line}\n" for line in Path(path).read_text().splitlines() if not line.startswith("libvirt-qemu:"))


def _wait(condition: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def _be_init(folder: Path) -> None:
    """PID 1 of the machine: mounts, a bridge, libvirtd again and again, and every orphan reaped."""

    def run(*command: str) -> None:
        subprocess.run(command, check=True)

    run("mount", "-t", "proc", "proc", "/proc")
    for name, place in PRIVATE.items():
        Path(place).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(folder / name), place)
    for name in ("passwd", "group"):
        run("mount", "--bind", str(folder / name), f"/etc/{name}")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "up")
    while True:
        (folder / "run/libvirtd.pid").unlink(missing_ok=True)
        with open(folder / "log/libvirtd.out", "ab") as log:
            daemon = subprocess.Popen(
                ["/usr/sbin/libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        while os.wait()[0] != daemon.pid:
            pass


if __name__ == "__main__":
    _be_init(Path(sys.argv[1]))

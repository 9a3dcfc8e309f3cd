"""A machine to enrol: sshd on loopback in a mount namespace of its own, so that nothing outside of it changes."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

import paramiko

from tests.cloud.agent.waiting import free_port, wait_until

SUPERVISORCTL = '#!/bin/sh\necho "$@" >> {calls}\n'
SET_UP = """
set -e
mount -t tmpfs tmpfs {folder}/upper
mkdir {folder}/upper/up {folder}/upper/work
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/upper/up,workdir={folder}/upper/work /etc
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /run
mkdir /run/sshd
printf 'root:%s:19000:0:99999:7:::\\n' "$(openssl passwd -6 -stdin < {folder}/password)" > /etc/shadow
sed -i 's#^root:.*#root:x:0:0:root:/:/bin/sh#' /etc/passwd
mkdir -p /etc/mica/supervisor.d
printf '%s\\n' {folder}/supervisorctl > /etc/mica/supervisorctl
exec /usr/sbin/sshd -D -e -f {folder}/sshd_config
"""


class Machine:
    """One machine; root signs in with `password` or `private_key`."""

    address = "127.0.0.1"
    password = "correct horse"

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "upper").mkdir()
        (folder / "password").write_text(self.password + "\n")
        self.private_key = self._make_key("user_key")
        (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
        tool = folder / "supervisorctl"
        tool.write_text(SUPERVISORCTL.format(calls=shlex.quote(str(folder / "calls"))))
        tool.chmod(0o755)
        self.new_host_key()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def new_host_key(self) -> None:
        """As after a new installation; counts from the next start."""
        for path in self.folder.glob("host_key*"):
            path.unlink()
        self._make_key("host_key")
        settings = {
            "ListenAddress": f"{self.address}:{self.port}",
            "HostKey": self.folder / "host_key",
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "yes",
            "KbdInteractiveAuthentication": "no",
            "PidFile": "none",
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        (self.folder / "sshd_config").write_text(text)

    def fingerprint(self) -> str:
        said = subprocess.run(
            ["ssh-keygen", "-l", "-f", self.folder / "host_key.pub"], capture_output=True, text=True, check=True
        )
        return said.stdout.split()[1]

    def start(self) -> None:
        log = (self.folder / "log").open("wb")
        script = SET_UP.format(folder=shlex.quote(str(self.folder)))
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        wait_until(lambda: b"Server listening" in (self.folder / "log").read_bytes(), 10)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def inside(self, path: str) -> Path:
        """A path of the machine, as seen from here."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root{path}")

    def calls(self) -> list[str]:
        """What its service manager was told."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def left(self) -> set[str]:
        """What enrolment left on it: files below the platform's folders."""
        found = set()
        for folder in ("/opt/mica", "/etc/mica"):
            root = self.inside(folder)
            found |= {f"{folder}/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file()}
        return found - {"/etc/mica/supervisorctl"}

    def _make_key(self, name: str) -> str:
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
        return path.read_text()


def stranger_key() -> str:
    """The private key of somebody whom no machine knows."""
    import io

    text = io.StringIO()
    paramiko.ECDSAKey.generate().write_private_key(text)
    return text.getvalue()

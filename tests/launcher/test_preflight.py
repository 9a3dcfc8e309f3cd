"""What is said to those who cannot start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import preflight
from launcher.errors import Refusal
from launcher.instance import Instance

ACCEPTED = {
    "debian 12": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    "debian testing": "ID=debian\nPRETTY_NAME=Debian sid\n",
    "ubuntu": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "derivative": 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n',
}
REFUSED = {
    "debian 11": ('ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11"\n', "Linux 11 is too old"),
    "ubuntu 22.04": ('ID=ubuntu\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04"\n', "too old"),
    "fedora": ('ID=fedora\nVERSION_ID=41\nPRETTY_NAME="Fedora 41"\n', "Fedora 41, not Debian or Ubuntu"),
    "nothing": ("", "not Debian or Ubuntu"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_known_distributions_pass(tmp_path: Path, name: str) -> None:
    file = tmp_path / "os-release"
    file.write_text(ACCEPTED[name])
    preflight.check_distribution(file)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_told_which_are_known(tmp_path: Path, name: str) -> None:
    text, words = REFUSED[name]
    file = tmp_path / "os-release"
    file.write_text(text)
    with pytest.raises(Refusal, match=words) as refused:
        preflight.check_distribution(file)
    assert "Debian 12" in refused.value.advice


def test_taken_port_is_told_with_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        # The owner must be someone else than ourselves: we are never the culprit.
        owner = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], pass_fds=[server.fileno()])
        try:
            with pytest.raises(Refusal, match=rf"Port {port} is taken by process {owner.pid} \(") as refused:
                preflight.check_port(port)
            assert "MICA_PORT" in refused.value.advice
        finally:
            owner.kill()
            owner.wait()


def test_free_port_passes() -> None:
    preflight.check_port(preflight.free_port())


def test_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DISK_FIRST_BYTES", 1 << 62)
    with pytest.raises(Refusal, match="GiB are free"):
        preflight.check_disk(Instance("never-made", tmp_path))


def test_without_root_and_sudo_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(preflight.shutil, "which", lambda _: None)
    with pytest.raises(Refusal, match="only root") as refused:
        preflight.become_root()
    assert "sudo" in refused.value.advice


def test_sudo_keeps_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "environ", {"MICA_PORT": "9000", "HOME": "/home/me"})
    monkeypatch.setattr(preflight.shutil, "which", lambda _: "/usr/bin/sudo")
    monkeypatch.setattr(os, "execv", lambda _, argv: seen.append(argv))
    preflight.become_root()
    assert "--preserve-env=MICA_PORT" in seen[0]

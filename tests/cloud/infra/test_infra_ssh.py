"""The SSH driver against a real sshd: what it refuses, with which code, and what it does as root there."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.common.driver import DriverError, Rejected, Transient
from cloud.infra.drivers import ssh
from cloud.infra.drivers.ssh import Credentials, HostKey, HostKeyChanged, Remote
from tests.cloud.agent.waiting import free_port, wait_until
from tests.cloud.infra.machine import Machine, stranger_key

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes a mount namespace")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"))
    yield made
    made.stop()


def connect(machine: Machine, pinned: HostKey | None = None, **secret: str) -> Remote:
    secret = secret or {"private_key": machine.private_key}
    return Remote.connect(machine.address, machine.port, Credentials("root", **secret), pinned=pinned, may_loop=True)


def code_of(address: str, port: int, may_loop: bool = True) -> str:
    with pytest.raises(DriverError) as caught:
        Remote.connect(address, port, Credentials("root", "x"), pinned=None, may_loop=may_loop)
    return caught.value.code


@pytest.mark.parametrize("secret", ["password", "private_key"])
def test_signs_in_and_is_root(machine: Machine, secret: str) -> None:
    with connect(machine, **{secret: getattr(machine, secret)}) as remote:
        assert remote.check(["id", "-u"]) == "0\n"
        assert remote.host_key == HostKey("ssh-ed25519", machine.fingerprint())


def test_wrong_password_and_wrong_key(machine: Machine) -> None:
    for secret in ({"password": "wrong"}, {"private_key": stranger_key()}):
        with pytest.raises(Rejected) as caught:
            connect(machine, **secret)
        assert caught.value.code == "ssh_secret_wrong"


def test_no_secret_is_shown_to_a_machine_with_another_key(machine: Machine) -> None:
    with pytest.raises(HostKeyChanged) as caught:
        connect(machine, pinned=HostKey("ssh-ed25519", "SHA256:" + "A" * 43), password="wrong")
    assert caught.value.code == "host_key_changed"
    assert caught.value.shown.fingerprint == machine.fingerprint()


def test_the_pinned_key_is_taken(machine: Machine) -> None:
    with connect(machine, pinned=HostKey("ssh-ed25519", machine.fingerprint())) as remote:
        assert remote.run(["true"]).status == 0


def test_nothing_listens() -> None:
    assert code_of("127.0.0.1", free_port()) == "ssh_refused"


def test_something_else_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200))
        thread.start()
        assert code_of("127.0.0.1", server.getsockname()[1]) == "not_ssh"
        thread.join()


def test_unknown_name() -> None:
    assert code_of("no-such-machine.invalid", 22) == "address_unknown"


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "224.0.0.1", "169.254.1.1"])
def test_addresses_that_are_no_machines(address: str) -> None:
    assert code_of(address, 22, may_loop=False) == "address_refused"


def test_files_appear_whole_with_their_mode(machine: Machine) -> None:
    content = os.urandom(3 * 1024 * 1024)
    with connect(machine) as remote:
        remote.write("/opt/a folder/it's", content, mode="0640")
        assert remote.exists("/opt/a folder/it's")
        path = machine.inside("/opt/a folder/it's")
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.parent.stat().st_mode & 0o777 == 0o700
        remote.remove("/opt/a folder", "/opt/never was")
        assert remote.read("/opt/a folder/it's") is None


def test_arguments_are_never_a_shells(machine: Machine) -> None:
    with connect(machine) as remote:
        assert remote.check(["echo", "$(id)", "; rm -rf /", "'\"\n"]) == "$(id) ; rm -rf / '\"\n\n"


def test_input_and_status(machine: Machine) -> None:
    with connect(machine) as remote:
        assert remote.check(["cat"], stdin=b"a\nb") == "a\nb"
        result = remote.run(["sh", "-c", "echo no >&2; exit 3"])
        assert (result.status, result.last_words) == (3, "no")
        with pytest.raises(Rejected, match="failed \\(3\\): no"):
            remote.check(["sh", "-c", "echo no >&2; exit 3"])


# Says nothing more, and does not end either.
MUTE = ["sh", "-c", "exec >&- 2>&-; sleep 20"]


@pytest.mark.parametrize(
    ("within_s", "timeout_s", "argv"),
    [(60, 0.5, MUTE), (1.5, 60, MUTE), (60, 0.5, ["sleep", "20"]), (60, 0.5, ["sh", "-c", "while :; do echo; done"])],
)
def test_nothing_hangs_longer_than_it_may(machine: Machine, within_s: float, timeout_s: float, argv: list[str]) -> None:
    credentials = Credentials("root", private_key=machine.private_key)
    began = time.monotonic()
    with (
        Remote.connect(
            machine.address, machine.port, credentials, pinned=None, may_loop=True, within_s=within_s
        ) as remote,
        pytest.raises(Transient) as caught,
    ):
        remote.run(argv, timeout_s=timeout_s)
    assert caught.value.code in ("ssh_timed_out", "ssh_lost")
    assert time.monotonic() - began < 15


def test_the_connection_is_kept_alive_and_nothing_is_left_ticking(machine: Machine) -> None:
    before = threading.active_count()
    with connect(machine) as remote:
        assert remote._transport.packetizer._Packetizer__keepalive_interval == ssh.KEEPALIVE_S  # type: ignore[attr-defined]
        remote.check(["true"])
    wait_until(lambda: threading.active_count() <= before)


def test_a_command_that_is_killed_is_no_lost_connection(machine: Machine) -> None:
    with connect(machine) as remote:
        assert remote.run(["sh", "-c", "kill -9 $$"]).status != 0
        assert remote.check(["echo", "there"]) == "there\n"


def test_a_full_disk_has_its_own_code(machine: Machine) -> None:
    with connect(machine) as remote:
        remote.check(["sh", "-c", "mkdir -p /opt/small && mount -t tmpfs -o size=64k tmpfs /opt/small"])
        with pytest.raises(Rejected) as caught:
            remote.write("/opt/small/file", b"x" * 1024 * 1024)
        assert caught.value.code == "disk_full"
        assert list(machine.inside("/opt/small").iterdir()) == []


def test_private_keys_that_cannot_be_used(tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a phrase", "-f", path], check=True)
    for text in (path.read_text(), "", "nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"):
        with pytest.raises(Rejected) as caught:
            ssh.load_private_key(text)
        assert caught.value.code == "ssh_key_unreadable"


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Credentials("root", "hidden", "hidden"))

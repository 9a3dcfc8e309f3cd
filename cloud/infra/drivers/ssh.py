"""Speaking with a machine over SSH while it is enrolled. No Django; blocking: for workers of `control.ssh` only.

The host key is looked at before anything secret is sent. Paramiko's and the operating system's errors end here: what
leaves is a `cloud.common.driver` error with a stable code.
"""

import errno
import io
import ipaddress
import shlex
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import paramiko

from cloud.common.driver import Rejected, Transient

CONNECT_TIMEOUT_S = 10.0
SIGN_IN_TIMEOUT_S = 20.0
RUN_TIMEOUT_S = 60.0
SESSION_TIMEOUT_S = 300.0
KEEPALIVE_S = 10
# What was sent and not acknowledged for so long was sent to nobody (tcp(7), TCP_USER_TIMEOUT).
UNHEARD_S = 30
OUTPUT_LIMIT = 1024 * 1024
# What paramiko gives for the exit status when none came.
NO_STATUS = -1
NO_SPACE = "No space left on device"
# The file appears whole or not at all; its folder is the platform's own and for root alone.
WRITE_SCRIPT = (
    'umask 077; mkdir -p "$(dirname "$1")" && cat > "$1.partial" && chmod "$2" "$1.partial" && mv -f "$1.partial" "$1" '
    '|| { status=$?; rm -f "$1.partial"; exit $status; }'
)


@dataclass(frozen=True)
class Credentials:
    """How to sign in: a password or a private key (PEM or OpenSSH text, without a pass phrase)."""

    user: str
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class HostKey:
    """A machine's SSH key: its type as `ssh-ed25519` ("" when not known), and `SHA256:…` as ssh-keygen says."""

    type: str
    fingerprint: str


class HostKeyChanged(Rejected):
    """The machine shows another key than the one pinned: `shown` is the new one."""

    def __init__(self, shown: HostKey) -> None:
        super().__init__("host_key_changed", f"The machine shows another host key: {shown.type} {shown.fingerprint}.")
        self.shown = shown


@dataclass(frozen=True)
class Result:
    """What a command said. `status` is its exit status."""

    status: int
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        return (self.stderr.strip() or self.stdout.strip())[-500:]


def load_private_key(text: str) -> paramiko.PKey:
    """The key in the text. Raises Rejected `ssh_key_unreadable`."""
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise Rejected("ssh_key_unreadable", "The private key has a pass phrase; one without is needed.") from None
        except (paramiko.SSHException, ValueError, IndexError, UnicodeError):
            continue
    raise Rejected("ssh_key_unreadable", "The private key cannot be read; Ed25519, ECDSA and RSA keys are known.")


def resolve(address: str, port: int, *, may_loop: bool = False) -> str:
    """The IP address of a machine. Raises Rejected when the name is unknown or leads to this machine itself."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise Rejected("address_unknown", f"The name {address} is not known: {error}") from error
    for ip in found:
        if not may_loop and not is_reachable_kind(ip):
            raise Rejected("address_refused", f"{address} leads to {ip}, which is no machine's own address.")
    return found[0]


def is_reachable_kind(ip: str) -> bool:
    """Whether it is an address that another machine can have: not loopback, unspecified, multicast or link-local."""
    parsed = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local)


class Remote:
    """A signed-in session, used as a context manager; commands run as root (directly or by sudo)."""

    def __init__(self, transport: paramiko.Transport, credentials: Credentials, host_key: HostKey) -> None:
        self._transport = transport
        self._credentials = credentials
        self.host_key = host_key
        self._prefix: list[str] = []
        self._prelude = b""
        self._end: Fuse | None = None

    @classmethod
    def connect(
        cls,
        address: str,
        port: int,
        credentials: Credentials,
        *,
        pinned: HostKey | None,
        may_loop: bool = False,
        within_s: float = SESSION_TIMEOUT_S,
    ) -> Self:
        """Sign in. With `pinned`, only to a machine that shows this key. The session is cut after `within_s` seconds.

        Raises Rejected: address_unknown, address_refused, host_key_changed, ssh_secret_wrong, ssh_key_unreadable,
        not_ssh, not_root; Transient: host_unreachable, no_route, ssh_refused, ssh_lost, ssh_timed_out.
        """
        key = load_private_key(credentials.private_key) if credentials.private_key else None
        transport = _transport(resolve(address, port, may_loop=may_loop), port)
        end = Fuse(transport, within_s)
        try:
            shown = _exchange_keys(transport, pinned)
            if pinned is not None and shown.fingerprint != pinned.fingerprint:
                raise HostKeyChanged(shown)
            _sign_in(transport, credentials, key)
            transport.set_keepalive(KEEPALIVE_S)
            remote = cls(transport, credentials, shown)
            remote._end = end
            remote._become_root()
        except BaseException:
            end.out()
            transport.close()
            raise
        return remote

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is not None:
            self._end.out()
        self._transport.close()

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = RUN_TIMEOUT_S) -> Result:
        """Run a command as root; one that is not done within `timeout_s` ends the session.

        Raises Transient `ssh_timed_out`, `ssh_lost` when the connection breaks, Rejected `disk_full`.
        """
        result = self._run([*self._prefix, "env", "LC_ALL=C", *argv], self._prelude + stdin, timeout_s)
        if result.status and NO_SPACE in result.stderr:
            raise Rejected("disk_full", f"No space is left on the machine: {result.last_words}")
        return result

    def check(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = RUN_TIMEOUT_S) -> str:
        """As `run`, and its standard output. Raises Rejected `command_failed` when it fails."""
        result = self.run(argv, stdin=stdin, timeout_s=timeout_s)
        if result.status:
            raise Rejected("command_failed", f"{shlex.join(argv[:3])} failed ({result.status}): {result.last_words}")
        return result.stdout

    def write(self, path: str, content: bytes, *, mode: str = "0600", timeout_s: float = 300) -> None:
        """Write a file, whole or not at all. Raises Rejected `disk_full`."""
        self.check(["sh", "-c", WRITE_SCRIPT, "sh", path, mode], stdin=content, timeout_s=timeout_s)

    def read(self, path: str) -> str | None:
        """A small file's text; None when it is not there."""
        result = self.run(["cat", "--", path])
        return result.stdout if result.status == 0 else None

    def exists(self, path: str) -> bool:
        return self.run(["test", "-e", path]).status == 0

    def remove(self, *paths: str) -> None:
        """Remove files and folders; absent is fine."""
        self.check(["rm", "-rf", "--", *paths])

    def _become_root(self) -> None:
        if self._run(["id", "-u"], b"", RUN_TIMEOUT_S).stdout.strip() == "0":
            return
        if self._run(["sudo", "-n", "true"], b"", RUN_TIMEOUT_S).status == 0:
            self._prefix = ["sudo", "-n"]
            return
        # -k: sudo then always reads the password, so that it never ends up in the command's own input.
        with_password = ["sudo", "-k", "-S", "-p", ""]
        prelude = self._credentials.password.encode() + b"\n"
        if self._credentials.password and self._run([*with_password, "true"], prelude, RUN_TIMEOUT_S).status == 0:
            self._prefix, self._prelude = with_password, prelude
            return
        raise Rejected("not_root", f"{self._credentials.user} is not root and may not become root by sudo.")

    def _run(self, argv: Sequence[str], stdin: bytes, timeout_s: float) -> Result:
        fuse = Fuse(self._transport, timeout_s)
        try:
            channel = self._transport.open_session(timeout=timeout_s)
            with channel:
                channel.settimeout(timeout_s)
                channel.exec_command(shlex.join(argv))
                _feed(channel, stdin)
                stdout = channel.makefile("rb").read(OUTPUT_LIMIT)
                stderr = channel.makefile_stderr("rb").read(OUTPUT_LIMIT)
                status = channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._expect_in_time(argv, fuse)
            raise Transient("ssh_lost", f"The SSH connection broke: {error or type(error).__name__}") from error
        finally:
            fuse.out()
        # A command that was killed has none either, but leaves the connection alive.
        if status == NO_STATUS and not self._transport.is_active():
            self._expect_in_time(argv, fuse)
            raise Transient("ssh_lost", "The SSH connection broke before the command told how it ended.")
        return Result(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))

    def _expect_in_time(self, argv: Sequence[str], fuse: "Fuse") -> None:
        if fuse.is_blown or (self._end is not None and self._end.is_blown):
            raise Transient("ssh_timed_out", f"{shlex.join(argv[:4])[:200]} was not done in time.")


class Fuse:
    """Closes a connection when its time is over, unless it is taken out before.

    Paramiko waits for events without any limit in several places (an exit status, the answer to a request): only the
    end of the connection frees whoever waits there.
    """

    def __init__(self, transport: paramiko.Transport, seconds: float) -> None:
        self._transport = transport
        self.is_blown = False
        self._timer = threading.Timer(seconds, self._blow)
        self._timer.daemon = True
        self._timer.start()

    def out(self) -> None:
        self._timer.cancel()

    def _blow(self) -> None:
        self.is_blown = True
        self._transport.close()


def _feed(channel: paramiko.Channel, content: bytes) -> None:
    try:
        channel.sendall(content)
        channel.shutdown_write()
    except OSError as error:
        # A command that ends early (a full disk) closes its input: its exit status tells why.
        if isinstance(error, TimeoutError):
            raise


def _transport(ip: str, port: int) -> paramiko.Transport:
    try:
        connection = socket.create_connection((ip, port), timeout=CONNECT_TIMEOUT_S)
    except ConnectionRefusedError as error:
        raise Transient("ssh_refused", f"Nothing takes SSH connections at {ip} port {port}.") from error
    except TimeoutError as error:
        raise Transient("host_unreachable", f"{ip} did not answer within {CONNECT_TIMEOUT_S:.0f} seconds.") from error
    except OSError as error:
        code = "no_route" if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) else "host_unreachable"
        raise Transient(code, f"{ip} cannot be reached: {error.strerror or error}") from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_S * 1000)
    try:
        return paramiko.Transport(connection)
    except paramiko.SSHException as error:
        connection.close()
        raise Rejected("not_ssh", f"What listens at {ip} port {port} does not speak SSH: {error}") from error


def _exchange_keys(transport: paramiko.Transport, pinned: HostKey | None) -> HostKey:
    transport.banner_timeout = transport.handshake_timeout = CONNECT_TIMEOUT_S
    if pinned is not None:
        options = transport.get_security_options()
        # Ask for the kind of key that is pinned first: a machine has several, and the choice may change with time.
        options.key_types = sorted(options.key_types, key=lambda known: not _same_kind(known, pinned.type))
    try:
        transport.start_client(timeout=CONNECT_TIMEOUT_S)
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Rejected("not_ssh", f"The machine's SSH service does not answer as one: {error}") from error
    return HostKey(key.get_name(), key.fingerprint)


def _same_kind(algorithm: str, key_type: str) -> bool:
    return algorithm == key_type or (key_type == "ssh-rsa" and algorithm.startswith("rsa-"))


def _sign_in(transport: paramiko.Transport, credentials: Credentials, key: paramiko.PKey | None) -> None:
    transport.auth_timeout = SIGN_IN_TIMEOUT_S
    try:
        if key is not None:
            transport.auth_publickey(credentials.user, key)
        else:
            transport.auth_password(credentials.user, credentials.password)
    except paramiko.BadAuthenticationType as error:
        words = f"The machine does not take this kind of secret; it takes: {', '.join(error.allowed_types)}."
        raise Rejected("ssh_secret_wrong", words) from error
    except paramiko.AuthenticationException as error:
        raise Rejected("ssh_secret_wrong", f"The machine refused {credentials.user}: wrong user or secret.") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise Transient("ssh_lost", f"The SSH connection broke while signing in: {error}") from error
    if not transport.is_authenticated():
        raise Rejected("ssh_secret_wrong", "The machine wants more than this secret to sign in.")

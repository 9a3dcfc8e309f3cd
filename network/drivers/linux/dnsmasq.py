"""One dnsmasq(8) for an L3 network on this host: its files, its process, its leases.

Traps it is built around: a SIGHUP crashes dnsmasq 2.90 after a transaction with tags, so additions go through
`dhcp-hostsdir` (watched by inotify) and everything else through a restart, which costs 25 ms; a lease kept for an
address that now belongs to another NIC would make dnsmasq refuse it, so such leases are dropped while it is down.
"""

import ipaddress
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from cloud.common.driver import DriverError, Rejected, Transient
from network.drivers.linux.errors import told
from network.drivers.linux.namespaces import inside
from network.drivers.linux.processes import is_running, stop
from network.messages import DhcpHost, DhcpNetwork, namespace_name

INTERFACE = "eth0"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")


class DhcpServer:
    """The dnsmasq of one L3 network; all it needs lies in `folder`."""

    def __init__(self, l3: str, folder: Path) -> None:
        self.l3 = l3
        self.folder = folder
        self._conf = folder / "dnsmasq.conf"
        self._hosts = folder / "hosts"
        self._leases = folder / "leases"
        self._pid_file = folder / "dnsmasq.pid"

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run. A reused id is not taken for it."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_running(pid, str(self._conf)) else None

    def entries(self) -> list[tuple[str, str]]:
        """The (MAC, IP) pairs it knows, by its files."""
        lines = [entry.read_text().split(",") for entry in self._hosts.iterdir()] if self._hosts.is_dir() else []
        return sorted((words[0], words[1]) for words in lines if len(words) >= 2)

    def converge(self, network: DhcpNetwork) -> list[str]:
        """Write what is wanted and see that the process serves it. Returns the changes in words."""
        conf, hosts = configuration(network, self.folder), {host.mac: host_line(host) for host in network.hosts}
        with told(f"write the files of the DHCP server {self.l3}"):
            self._hosts.mkdir(parents=True, exist_ok=True)
            held = {entry.name.replace("-", ":"): entry.read_text() for entry in self._hosts.iterdir()}
            is_new = not self._conf.exists() or self._conf.read_text() != conf
            added = {mac: line for mac, line in hosts.items() if mac not in held}
            is_less = any(hosts.get(mac) != line for mac, line in held.items())
            if not (is_new or added or is_less) and self.pid:
                return []
            if is_new or is_less or not self.pid:
                self._restart(conf, hosts, held, network)
                return [f"restarted dhcp {self.l3}"]
            for mac, line in added.items():
                self._write_host(mac, line)
        return [f"added {len(added)} to dhcp {self.l3}"]

    def remove(self) -> None:
        """Stop it and remove its files, leases too; absent is fine."""
        self._stop()
        with told(f"remove the files of the DHCP server {self.l3}"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the process on the files as they are. Raises Rejected when dnsmasq refuses them."""
        command = ["dnsmasq", f"--conf-file={self._conf}"]
        try:
            inside(namespace_name(self.l3), _run, command)
        except FileNotFoundError as error:
            raise DriverError("dnsmasq_missing", "dnsmasq is not installed on this host") from error
        except subprocess.CalledProcessError as error:
            raise Rejected("dhcp_refused", f"dnsmasq does not start: {error.stderr.strip() or error}") from error
        except subprocess.TimeoutExpired as error:
            raise Transient("dhcp_slow", "dnsmasq did not start within 10 s") from error

    def _restart(self, conf: str, hosts: dict[str, str], held: dict[str, str], network: DhcpNetwork) -> None:
        self._stop()
        for mac in held.keys() - hosts.keys():
            (self._hosts / mac.replace(":", "-")).unlink(missing_ok=True)
        for mac, line in hosts.items():
            if held.get(mac) != line:
                self._write_host(mac, line)
        self._keep_leases({(host.mac, host.ip) for host in network.hosts})
        _write(self._conf, conf)
        self.start()

    def _stop(self) -> None:
        pid = self.pid
        if pid:
            stop(pid, signal.SIGTERM, grace_s=3)
        self._pid_file.unlink(missing_ok=True)

    def _write_host(self, mac: str, line: str) -> None:
        _write(self._hosts / mac.replace(":", "-"), line)

    def _keep_leases(self, wanted: set[tuple[str, str]]) -> None:
        """Leave only leases of wanted (mac, ip) pairs; a line is `expiry mac ip name client-id`."""
        text = self._leases.read_text() if self._leases.exists() else ""
        kept = [line for line in text.splitlines() if len(w := line.split()) >= 3 and (w[1], w[2]) in wanted]
        _write(self._leases, "".join(f"{line}\n" for line in kept))


def configuration(network: DhcpNetwork, folder: Path) -> str:
    """dnsmasq's configuration file. Every value is checked first: nothing from outside can add a line or an option.

    Raises Rejected when a value is not what it should be.
    """
    subnet = _subnet(network)
    lines = [
        "user=root",
        "port=0",
        "bind-interfaces",
        f"interface={INTERFACE}",
        "except-interface=lo",
        "no-resolv",
        "no-hosts",
        # Guests come from other hosts with leases that this server never gave: it is the only one, so it may say so.
        "dhcp-authoritative",
        "dhcp-no-override",
        "dhcp-ignore=tag:!known",
        "quiet-dhcp",
        f"dhcp-range={subnet.network_address},static,{subnet.netmask},{int(network.lease_s)}",
        f"dhcp-lease-max={subnet.num_addresses}",
        f"dhcp-hostsdir={folder / 'hosts'}",
        f"dhcp-leasefile={folder / 'leases'}",
        f"pid-file={folder / 'dnsmasq.pid'}",
        f"log-facility={folder / 'dnsmasq.log'}",
        _option("router", [_address(network.gateway)] if network.gateway else []),
        _option("dns-server", [_address(server) for server in network.dns]),
        f"dhcp-option-force=option:mtu,{int(network.mtu)}",
    ]
    if network.domain:
        lines.append(f"domain={_matched(_DOMAIN, network.domain, 'domain')}")
    if network.routes:
        lines.append(_option("classless-static-route", _routes(network)))
    return "".join(f"{line}\n" for line in lines)


def host_line(host: DhcpHost) -> str:
    """One entry of the hosts directory (`dhcp-host`). Raises Rejected when a value is not what it should be."""
    mac = _matched(_MAC, host.mac, "MAC address")
    return f"{mac},{_address(host.ip)},{_matched(_LABEL, host.hostname, 'host name')}\n"


def _option(name: str, values: list[str]) -> str:
    # Without a value the option is left out of the answer: dnsmasq would else offer itself.
    return ",".join([f"dhcp-option=option:{name}", *values])


def _routes(network: DhcpNetwork) -> list[str]:
    # RFC 3442: a client that understands this option ignores the router option, so the default route is repeated.
    routes = [(str(_network(route.destination)), _address(route.via)) for route in network.routes]
    if network.gateway:
        routes.append(("0.0.0.0/0", _address(network.gateway)))
    return [word for route in routes for word in route]


def _subnet(network: DhcpNetwork) -> ipaddress.IPv4Network:
    return _network(f"{_address(network.address)}/{int(network.prefix)}", strict=False)


def _network(text: str, *, strict: bool = True) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text, strict=strict)
    except ValueError as error:
        raise Rejected("dhcp_value_refused", f"{text!r} is not an IPv4 network") from error


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise Rejected("dhcp_value_refused", f"{text!r} is not an IPv4 address") from error


def _matched(shape: re.Pattern[str], text: str, what: str) -> str:
    if not shape.fullmatch(text):
        raise Rejected("dhcp_value_refused", f"{text!r} is not a {what}")
    return text


def _run(command: list[str]) -> None:
    """Run what puts itself in the background; it inherits the calling thread's network namespace."""
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)


def _write(place: Path, text: str) -> None:
    """Write a whole file or nothing: dnsmasq may read it at any moment."""
    part = place.parent.parent / f".{place.name}.part" if place.parent.name == "hosts" else place.with_suffix(".part")
    part.write_text(text)
    os.replace(part, place)

"""Hosts, a switch between them and guests, as network namespaces; and the fake host behind the same face."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud.common import driver as errors
from network.drivers.fake import FakeNetwork
from network.messages import (
    DhcpDesired,
    NetworksDesired,
    SeenDevice,
    SeenNetworks,
    bridge_name,
    namespace_name,
    tap_name,
)

# A machine's own mounts, and its own process ids: when its first process ends, so do all others.
OWN = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
UDHCPC_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
[ -n "$router" ] && ip route replace default via "$router"
[ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
env
"""


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


class Driven:
    """What the contract's tests see of a host, fake or real."""

    def networks(self, wanted: NetworksDesired) -> list[str]:
        raise NotImplementedError

    def dhcp(self, wanted: DhcpDesired) -> list[str]:
        raise NotImplementedError

    def probe(self, l2: str, address: str, timeout_s: float = 0.3) -> list[str]:
        raise NotImplementedError

    def lose_bridge(self, l2: str) -> None:
        raise NotImplementedError

    def lose_server(self, l3: str) -> None:
        raise NotImplementedError

    def seen(self) -> SeenNetworks:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def add_stray(self, name: str, sort: str) -> None:
        """An interface that looks like ours and that nobody wants."""
        raise NotImplementedError

    def owned(self) -> set[str]:
        """What the driver has made on the machine and not removed."""
        raise NotImplementedError


class FakeHost(Driven):
    def __init__(self) -> None:
        self.driver = FakeNetwork()
        self.networks = self.driver.converge_networks  # type: ignore[method-assign]
        self.dhcp = self.driver.converge_dhcp  # type: ignore[method-assign]
        self.seen = self.driver.seen  # type: ignore[method-assign]
        self.remove = self.driver.remove  # type: ignore[method-assign]

    def probe(self, l2: str, address: str, timeout_s: float = 0.3) -> list[str]:
        return self.driver.probe(l2, address, timeout_s)

    def lose_bridge(self, l2: str) -> None:
        del self.driver.bridges[l2]

    def lose_server(self, l3: str) -> None:
        del self.driver.servers[l3]

    def add_stray(self, name: str, sort: str) -> None:
        self.driver.strays[name] = SeenDevice(name, sort)

    def owned(self) -> set[str]:
        return {*self.driver.bridges, *self.driver.servers}


class LinuxHost(Driven):
    """A host in a namespace; `run` runs a command there."""

    def __init__(self, namespace: str, state_dir: Path) -> None:
        self.namespace = namespace
        command = [sys.executable, "-m", "tests.network.drivers.host_process", str(state_dir)]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "unshare", *OWN, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, act: str, **given: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"act": act, **given}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "code" in answer:
            natures = {"transient": errors.Transient, "not_found": errors.NotFound, "rejected": errors.Rejected}
            cls = natures.get(answer["nature"]) or (
                errors.Unsupported if answer["nature"] == "unsupported" else errors.DriverError
            )
            raise cls(answer["code"], answer["detail"])
        return answer["result"]

    def run(self, *words: str) -> str:
        code, out, err = self.ask("run", words=list(words))
        assert code == 0, f"{words}: {err}"
        return str(out)

    def networks(self, wanted: NetworksDesired) -> list[str]:
        return list(self.ask("networks", document=wanted.to_document()))

    def dhcp(self, wanted: DhcpDesired) -> list[str]:
        return list(self.ask("dhcp", document=wanted.to_document()))

    def probe(self, l2: str, address: str, timeout_s: float = 0.3) -> list[str]:
        return list(self.ask("probe", l2=l2, ip=address, timeout_s=timeout_s))

    def lose_bridge(self, l2: str) -> None:
        self.run("ip", "link", "del", bridge_name(l2))

    def lose_server(self, l3: str) -> None:
        for pid in self.run("ip", "netns", "pids", namespace_name(l3)).split():
            self.run("kill", "-9", pid)

    def seen(self) -> SeenNetworks:
        return SeenNetworks.from_document(self.ask("seen"))

    def remove(self, name: str) -> None:
        self.ask("remove", device=name)

    def add_stray(self, name: str, sort: str) -> None:
        words = {
            "tun": ["tuntap", "add", "dev", name, "mode", "tap"],
            "namespace": ["netns", "add", name],
            "vxlan": ["link", "add", name, "type", "vxlan", "id", "4711", "dstport", "4789"],
            "veth": ["link", "add", name, "type", "veth", "peer", "name", "stray"],
        }
        self.run("ip", *words.get(sort, ["link", "add", name, "type", sort]))

    def links(self) -> dict[str, Any]:
        found = json.loads(self.run("ip", "-j", "-d", "link", "show"))
        return {link["ifname"]: link for link in found}

    def owned(self) -> set[str]:
        names = {name for name in self.links() if name.startswith(("mb-", "vx-", "vl-", "dh-"))}
        return names | set(self.run("ls", "/run/netns").split() if self._has_netns() else [])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)

    def _has_netns(self) -> bool:
        return bool(self.ask("run", words=["test", "-d", "/run/netns"])[0] == 0)


class Guest:
    """A machine plugged into a host's bridge, in a namespace of its own."""

    def __init__(self, name: str, host: LinuxHost, l2: str, number: int, scratch: Path) -> None:
        self.name, self.host, self.uuid = name, host, str(uuid.uuid4())
        self.mac = f"fa:00:00:00:00:{number:02x}"
        self._script = scratch / "udhcpc"
        self._script.write_text(UDHCPC_SCRIPT)
        self._script.chmod(0o755)
        ip("netns", "add", name)
        tap = tap_name(self.uuid)
        peer = ["type", "veth", "peer", "name", "eth0", "address", self.mac, "netns", name]
        ip("-n", host.namespace, "link", "add", tap, *peer)
        ip("-n", host.namespace, "link", "set", tap, "master", bridge_name(l2), "up")
        ip("-n", name, "link", "set", "eth0", "up")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", "netns", "exec", self.name, *words], capture_output=True, text=True, timeout=30)

    def ask_dhcp(self, tries: int = 4) -> dict[str, str] | None:
        """The lease it is given, None when nobody answers."""
        options = ["-O", "mtu", "-O", "hostname", "-O", "domain", "-s", str(self._script), "-x", "hostname:guest"]
        done = self.run("busybox", "udhcpc", "-f", "-n", "-q", "-t", str(tries), "-T", "1", "-i", "eth0", *options)
        if done.returncode:
            return None
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def pings(self, address: str) -> bool:
        # Until one comes back: a neighbour that was just looked for in vain is not asked again for a second or two.
        return self.run("ping", "-c", "1", "-w", "4", address).returncode == 0


class World:
    """A switch with two hosts, `a` and `b`: eth1 joins their VTEP addresses, eth2 is a provider network."""

    def __init__(self, prefix: str, scratch: Path) -> None:
        self.prefix, self.scratch = prefix, scratch
        self._names: list[str] = []
        self._guests = 0
        self.switch = self._namespace("switch")
        for bridge in ("vtep", "provider"):
            ip("-n", self.switch, "link", "add", bridge, "type", "bridge")
            ip("-n", self.switch, "link", "set", bridge, "up")
        self.a, self.b = self._host("a", "10.99.1.11"), self._host("b", "10.99.1.12")

    def guest(self, host: LinuxHost, l2: str) -> Guest:
        self._guests += 1
        name = f"{self.prefix}-g{self._guests}"
        self._names.append(name)
        return Guest(name, host, l2, self._guests, self.scratch)

    def close(self) -> None:
        for host in (self.a, self.b):
            host.close()
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _namespace(self, role: str) -> str:
        name = f"{self.prefix}-{role}"
        ip("netns", "add", name)
        self._names.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def _host(self, role: str, vtep: str) -> LinuxHost:
        name = self._namespace(role)
        for card, bridge in (("eth1", "vtep"), ("eth2", "provider")):
            port = f"{role}-{card}"
            ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", card, "netns", name)
            ip("-n", self.switch, "link", "set", port, "master", bridge, "up")
            ip("-n", name, "link", "set", card, "up")
        ip("-n", name, "addr", "add", f"{vtep}/24", "dev", "eth1")
        state_dir = self.scratch / role
        state_dir.mkdir()
        return LinuxHost(name, state_dir)


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    """Whether the condition comes true in time; for what tells nobody when it happens."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False

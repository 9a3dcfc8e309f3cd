"""Looking at lab machines from outside: what is really on a host."""

import json
import os
import subprocess
from typing import Any

from launcher.cloud import Cloud


def inside(cloud: Cloud, machine: str, *command: str) -> str:
    """Standard output of a command run on the machine; it must succeed."""
    done = cloud.machine(machine).enter(list(command))
    assert done.returncode == 0, f"{machine}: {' '.join(command)}: {done.stderr}"
    return done.stdout


def domains(cloud: Cloud, host: str) -> set[str]:
    """Uuids of every domain that libvirt on the host knows."""
    return set(inside(cloud, host, "virsh", "-c", "qemu:///system", "list", "--all", "--uuid").split())


def links(cloud: Cloud, host: str) -> set[str]:
    """Names of the network interfaces of the host."""
    return {link["ifname"] for link in json.loads(inside(cloud, host, "ip", "-j", "link"))}


def traces(cloud: Cloud, host: str, *words: str) -> list[str]:
    """Files, processes and interfaces on the host whose name or command line holds one of the words."""
    found = inside(cloud, host, "find", "/srv", "/var/lib/mica-agent", "/run", "-xdev").split("\n")
    found += inside(cloud, host, "ps", "-eo", "args").split("\n")
    found += sorted(links(cloud, host))
    return [line for line in found if any(word in line for word in words)]


def ssh(cloud: Cloud, instance: str, command: str) -> str:
    """What a command prints in a guest, signed in through `./mica ssh`'s own way."""
    done = subprocess.run(
        [str(cloud.instance.checkout / "mica"), "ssh", instance, command],
        env={**os.environ, "MICA_INSTANCE": cloud.instance.name, "MICA_PORT": str(cloud.instance.port)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def doctor(cloud: Cloud, *words: str) -> tuple[int, dict[str, Any]]:
    """What `./mica doctor --json` answers, and its exit code."""
    done = subprocess.run(
        [str(cloud.instance.checkout / "mica"), "doctor", "--json", *words],
        env={**os.environ, "MICA_INSTANCE": cloud.instance.name, "MICA_PORT": str(cloud.instance.port)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, json.loads(done.stdout)


def is_well(cloud: Cloud) -> bool:
    """Whether the doctor finds nothing, and could look at every machine."""
    code, found = doctor(cloud)
    assert (code == 0) == (not found["results"] and not found["not_looked_at"])
    return code == 0

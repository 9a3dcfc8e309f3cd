"""Ways in: a guest's shell and a guest's port, through the cloud's own tunnel."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Sequence

from launcher.cloud import Cloud
from launcher.errors import Refusal


def ssh(cloud: Cloud, instance: str, command: Sequence[str]) -> int:
    """Sign in to a guest as root with the lab's key; returns ssh's exit code. Raises Refusal when there is no key."""
    key = cloud.instance.ssh_key
    if not key.exists():
        raise Refusal("There is no SSH key of the lab yet", "Start the cloud first: ./mica up")
    # ssh expands % in this option.
    through = shlex.join(_tunnel(cloud, instance, 22)).replace("%", "%%")
    return subprocess.call(
        [
            "ssh",
            "-i",
            key,
            "-o",
            f"ProxyCommand={through}",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            f"root@{instance}",
            *command,
        ],
        env=_environment(cloud),
        cwd=cloud.instance.checkout,
    )


def forward(cloud: Cloud, instance: str, port: int) -> None:
    """Listen on a free loopback port and carry each connection to the guest's port, until interrupted."""
    cloud.run_manage("tunnel", instance, str(port), "--check")
    with socket.create_server(("127.0.0.1", 0)) as server:
        cloud.steps.say(f"127.0.0.1:{server.getsockname()[1]} → {instance}:{port}   (Ctrl-C ends it)")
        running: list[subprocess.Popen[bytes]] = []
        try:
            while True:
                connection, _ = server.accept()
                running = [process for process in running if process.poll() is None]
                with connection:
                    # The tunnel takes the connection itself as its standard input and output.
                    running.append(
                        subprocess.Popen(
                            _tunnel(cloud, instance, port),
                            stdin=connection.fileno(),
                            stdout=connection.fileno(),
                            env=_environment(cloud),
                            cwd=cloud.instance.checkout,
                        )
                    )
        finally:
            for process in running:
                process.terminate()


def _tunnel(cloud: Cloud, instance: str, port: int) -> list[str]:
    return cloud.manage_command("tunnel", instance, str(port))


def _environment(cloud: Cloud) -> dict[str, str]:
    return {**os.environ, **cloud.env()}

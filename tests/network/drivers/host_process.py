"""A host for tests: the Linux driver in a network and mount namespace of its own, driven by lines of JSON.

Started as `ip netns exec <namespace> unshare … python -m tests.network.drivers.host_process <state_dir>`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cloud.common.driver import DriverError
from network.drivers.linux.driver import LinuxNetwork
from network.messages import DhcpDesired, NetworksDesired


def main() -> None:
    # Named namespaces lie in /run: each host has its own, as each machine has.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    driver = LinuxNetwork(Path(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": act(driver, request.pop("act"), **request)}
        except DriverError as error:
            answer = {"nature": error.nature, "code": error.code, "detail": error.detail}
        print(json.dumps(answer), flush=True)


def act(driver: LinuxNetwork, name: str, **given: Any) -> Any:
    if name == "networks":
        return driver.converge_networks(NetworksDesired.from_document(given["document"]))
    if name == "dhcp":
        return driver.converge_dhcp(DhcpDesired.from_document(given["document"]))
    if name == "probe":
        return driver.probe(given["l2"], given["ip"], given["timeout_s"])
    if name == "seen":
        return driver.seen().to_document()
    if name == "remove":
        return driver.remove(given["device"])
    if name == "connect":
        with driver.connect(given["l3"], given["ip"], given["port"], 5.0) as stream:
            return stream.makefile("rb").read().decode()
    if name == "run":
        done = subprocess.run(given["words"], capture_output=True, text=True, timeout=30)
        return [done.returncode, done.stdout, done.stderr]
    raise ValueError(name)


if __name__ == "__main__":
    main()

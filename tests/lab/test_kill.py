"""kill -9 of the processes beside the engine's own (those: test_chaos) while an instance is being created."""

import os
import signal

import pytest

from launcher.cloud import Cloud
from tests.lab.chaos import answers, settle_create
from tests.lab.client import Api, eventually
from tests.lab.machines import inside

CONTROL = ("worker-ssh", "victoria-metrics", "vmauth")


@pytest.mark.parametrize("process", CONTROL)
def test_a_control_process_killed_in_create(api: Api, cloud: Cloud, tidy: list[str], process: str) -> None:
    name = f"kill-{process}"
    tidy.append(name)
    accepted = api.create(name)
    pid = cloud.pid(process)
    assert pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: (cloud.pid(process) or pid) != pid and answers(api), 60, f"{process} is back")
    settle_create(api, cloud, accepted)


def test_a_dhcp_server_killed_in_create(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy.append("kill-dnsmasq")
    host = api.named("hosts", "host-1")
    accepted = api.create("kill-dnsmasq", host=host["uuid"])
    cloud.machine("host-1").enter(["pkill", "-9", "-f", "dnsmasq"])
    settle_create(api, cloud, accepted)
    eventually(lambda: api.get(host["url"])["connection"] == "connected", 40, "the host is connected")
    eventually(lambda: "dnsmasq" in inside(cloud, "host-1", "ps", "-eo", "comm"), 90, "DHCP is back")


def test_the_image_servers_agent_killed_in_create(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy.append("kill-storage")
    accepted = api.create("kill-storage")
    cloud.machine("storage").enter(["pkill", "-9", "-f", "agent.pyz"])
    settle_create(api, cloud, accepted)
    server = api.named("backup-storages", "storage")
    eventually(lambda: api.get(server["url"])["connection"] == "connected", 40, "the image server is connected")

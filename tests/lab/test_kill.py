"""kill -9 of every process once while an instance is being created: the job ends well, or as if it never was."""

import os
import signal

import pytest

from launcher.cloud import Cloud
from tests.lab.client import Api, eventually
from tests.lab.machines import domains, inside, traces

CONTROL = ("web", "worker", "worker-ssh", "beat", "redis", "postgres", "victoria-metrics", "vmauth")


def settle(api: Api, accepted: dict[str, object], cloud: Cloud) -> None:
    """The job's end is a good one or a complete undoing."""
    job = api.job(accepted, 150)
    instance = accepted["results"][0]  # type: ignore[index]
    if job["state"] == "succeeded":
        assert api.get(instance["url"])["state"] == "running"
        return
    assert job["state"] == "failed", job
    api.call("GET", instance["url"], 404)
    for host in ("host-1", "host-2"):
        assert instance["uuid"] not in domains(cloud, host)
        assert not traces(cloud, host, instance["uuid"])
    assert not [nic for nic in api.list("nics") if nic["instance_uuid"] == instance["uuid"]]
    assert not [volume for volume in api.list("volumes") if volume["instance_uuid"] == instance["uuid"]]


def answers(api: Api) -> bool:
    try:
        return bool(api.http.get("/api/v1/jobs/").is_success)
    except OSError:
        return False
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return False
        raise


# First: nobody is called disconnected in the first minute after Redis was killed.
def test_the_host_cut_off_in_create(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy.append("kill-cable")
    host = api.named("hosts", "host-2")
    accepted = api.create("kill-cable", host=host["uuid"])
    cloud.machine("host-2").cut("eth0")
    try:
        eventually(lambda: api.get(host["url"])["connection"] == "disconnected", 80, "host-2 is disconnected")
    finally:
        cloud.machine("host-2").mend("eth0")
    settle(api, accepted, cloud)
    eventually(lambda: api.get(host["url"])["connection"] == "connected", 40, "host-2 is back")


@pytest.mark.parametrize("process", CONTROL)
def test_a_control_process_killed_in_create(api: Api, cloud: Cloud, tidy: list[str], process: str) -> None:
    name = f"kill-{process}"
    tidy.append(name)
    accepted = api.create(name)
    pid = cloud.pid(process)
    assert pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: (cloud.pid(process) or pid) != pid and answers(api), 60, f"{process} is back")
    settle(api, accepted, cloud)


@pytest.mark.parametrize("process", ["agent.pyz", "libvirtd", "dnsmasq"])
def test_a_process_of_the_host_killed_in_create(api: Api, cloud: Cloud, tidy: list[str], process: str) -> None:
    name = f"kill-{process.partition('.')[0]}"
    tidy.append(name)
    host = api.named("hosts", "host-1")
    accepted = api.create(name, host=host["uuid"])
    cloud.machine("host-1").enter(["pkill", "-9", "-f", process])
    settle(api, accepted, cloud)
    eventually(lambda: api.get(host["url"])["connection"] == "connected", 40, "the host is connected")
    eventually(lambda: "dnsmasq" in inside(cloud, "host-1", "ps", "-eo", "comm"), 90, "DHCP is back")


def test_the_image_servers_agent_killed_in_create(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy.append("kill-storage")
    accepted = api.create("kill-storage")
    cloud.machine("storage").enter(["pkill", "-9", "-f", "agent.pyz"])
    settle(api, accepted, cloud)
    server = api.named("backup-storages", "storage")
    eventually(lambda: api.get(server["url"])["connection"] == "connected", 40, "the image server is connected")

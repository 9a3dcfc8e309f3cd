"""The way of a virtual machine on real parts: libvirt, QEMU, dnsmasq, VXLAN, sshd, the stream door."""

import asyncio
from typing import Any

import pytest
import websockets

from launcher.cloud import Cloud
from tests.lab.client import Api, eventually
from tests.lab.machines import domains, inside, ssh, traces


def public_key(cloud: Cloud) -> str:
    return cloud.instance.ssh_key.with_suffix(".pub").read_text().strip()


def test_hello_is_running_after_up(api: Api, cloud: Cloud) -> None:
    hello = api.named("instances", "hello")
    assert hello["state"] == "running"
    assert hello["uuid"] in domains(cloud, hello["host"]["name"])


def test_from_the_api_to_a_shell_in_the_guest_and_away_again(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy.append("journey")
    accepted = api.create("journey", ssh_keys=[public_key(cloud)], user_data="#!/bin/sh\necho was here > /root/mark\n")
    assert accepted["job"].startswith("/api/v1/jobs/")
    job = api.done(accepted)
    states = [step["state"] for step in job["steps"]]
    # A host that has the image already does not fetch it again.
    assert states.count("succeeded") >= len(states) - 1
    assert set(states) <= {"succeeded", "skipped"}
    instance = api.get(accepted["results"][0]["url"])
    assert instance["state"] == "running"

    guest = api.guest(instance)
    assert guest["addresses"] == instance["addresses"], "DHCP gave the address that was allocated"
    assert guest["hostname"] == "journey"

    assert ssh(cloud, "journey", "hostname; cat /root/mark").split("\n")[:2] == ["journey", "was here"]

    host, uuid = instance["host"]["name"], instance["uuid"]
    nic, volume = instance["nics"][0]["uuid"], instance["volumes"][0]["uuid"]
    api.done(api.post(f"instances/{uuid}/stop/", {"is_forced": True}, expect=202))
    assert api.get(f"instances/{uuid}/")["state"] == "stopped"
    api.done(api.post(f"instances/{uuid}/start/", expect=202))
    api.done(api.call("DELETE", f"instances/{uuid}/", 202))
    assert api.get(f"instances/{uuid}/")["state"] == "destroyed"
    assert uuid not in domains(cloud, host)
    api.done(api.post(f"instances/{uuid}/recover/", expect=202))
    api.done(api.post(f"instances/{uuid}/start/", expect=202))
    assert api.guest(api.get(f"instances/{uuid}/"))["addresses"] == instance["addresses"]
    api.done(api.call("DELETE", f"instances/{uuid}/", 202))
    api.done(api.post(f"instances/{uuid}/expunge/", expect=202))
    api.call("GET", f"instances/{uuid}/", 404)
    for name in ("host-1", "host-2"):
        words = (uuid, volume, nic, nic.replace("-", "")[:11], instance["nics"][0]["mac"])
        assert uuid not in domains(cloud, name)
        eventually(lambda name=name, words=words: not traces(cloud, name, *words), 10, f"nothing left on {name}")


def test_two_hosts_over_vxlan(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy += ["left", "right"]
    key = [public_key(cloud)]
    left = api.running("left", ssh_keys=key, host=api.named("hosts", "host-1")["uuid"])
    right = api.running("right", ssh_keys=key, host=api.named("hosts", "host-2")["uuid"])
    assert (left["host"]["name"], right["host"]["name"]) == ("host-1", "host-2")
    api.guest(left), api.guest(right)
    for name, other in (("left", right), ("right", left)):
        said = ssh(cloud, name, f"ping -c 3 -W 5 {other['addresses'][0]}")
        assert " 0% packet loss" in said, said
    vni = next(l2["vni"] for l2 in api.list("l2-networks") if l2["kind"] == "vxlan")
    assert f"id {vni}" in inside(cloud, "host-1", "ip", "-d", "link", "show", "type", "vxlan")


async def _greeting(url: str) -> bytes:
    async with websockets.connect(url, subprotocols=["binary"], max_size=None) as socket:  # type: ignore[list-item]
        first = await asyncio.wait_for(socket.recv(), 10)
        return first if isinstance(first, bytes) else first.encode()


def test_the_console_speaks_rfb_once_for_each_ticket(api: Api) -> None:
    hello = api.named("instances", "hello")
    ticket = api.post(f"instances/{hello['uuid']}/console/")
    url = f"{api.base.replace('http', 'ws')}{ticket['path']}"
    assert asyncio.run(_greeting(url)).startswith(b"RFB 003.")
    with pytest.raises(websockets.ConnectionClosed) as closed:
        asyncio.run(_greeting(url))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404


def test_several_at_once_under_one_parent(api: Api, tidy: list[str]) -> None:
    names = ["many-1", "many-2", "many-3"]
    tidy += names
    accepted = api.create("many-{n}", count=3)
    assert [made["name"] for made in accepted["results"]] == names
    parent = api.done(accepted)
    children = api.list("jobs", parent=parent["uuid"])
    assert {child["state"] for child in children} == {"succeeded"}
    made = [api.get(result["url"]) for result in accepted["results"]]
    assert len({instance["addresses"][0] for instance in made}) == 3
    assert len({instance["host"]["name"] for instance in made}) == 2, "the scheduler spreads"


def test_samples_of_hosts_and_instances_arrive(api: Api) -> None:
    hello = api.named("instances", "hello")

    def series(query: str) -> Any:
        return api.http.get("/api/v1/metrics/query", params={"query": query}).json()["data"]["result"]

    eventually(lambda: len(series("mica_host_cpu_used_percent")) == 2, 60, "samples of both hosts")
    found = eventually(
        lambda: series(f'mica_instance_memory_used_bytes{{instance="{hello["uuid"]}"}}'), 60, "samples of hello"
    )
    assert float(found[0]["value"][1]) > 0


def test_the_agent_on_a_host_is_one_file_and_the_distribution(cloud: Cloud) -> None:
    """It runs isolated by the distribution's Python; what it loads is listed in tests/cloud/agent."""
    assert inside(cloud, "host-1", "/usr/bin/python3", "-I", "/opt/mica/agent.pyz", "version").strip()
    agents = [line for line in inside(cloud, "host-1", "ps", "-eo", "args").split("\n") if "agent.pyz" in line]
    assert any(line.startswith("/usr/bin/python3 -I /opt/mica/agent.pyz run") for line in agents)
    assert str(cloud.instance.venv) not in "".join(agents)

"""`./mica down` and `up` again: nothing stays while it is down, what ran comes back."""

import subprocess

import pytest

from launcher import sweep
from launcher.cloud import Cloud
from launcher.lab import network
from tests.lab.client import Api, eventually


@pytest.mark.full
def test_down_leaves_nothing_and_up_brings_back_what_ran(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy += ["back", "off"]
    back, off = api.running("back"), api.running("off")
    api.guest(back)
    api.done(api.post(f"instances/{off['uuid']}/stop/", {"is_forced": True}, expect=202))
    hosts_before = {host["name"]: host["uuid"] for host in api.list("hosts")}
    cloud.down()
    assert not sweep.processes(cloud.instance)
    assert not network.left_behind(cloud.instance)
    assert not sweep.mounts(cloud.instance)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert cloud.instance.id6 not in listed
    cloud.up()
    assert {host["name"]: host["uuid"] for host in api.list("hosts")} == hosts_before

    def states() -> bool:
        now = {row["name"]: row["state"] for row in api.list("instances")}
        return now["back"] == "running" and now["off"] == "stopped" and now["hello"] == "running"

    eventually(states, 60, "what ran runs, what was stopped is stopped")
    assert api.guest(api.get(back["url"]))["addresses"] == back["addresses"]


@pytest.mark.full
def test_a_deleted_hello_is_not_made_again(api: Api, cloud: Cloud) -> None:
    api.expunge(api.named("instances", "hello"))
    cloud.up()
    assert not [row for row in api.list("instances") if row["name"] == "hello"]

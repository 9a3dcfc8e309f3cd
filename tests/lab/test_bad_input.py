"""What cannot be: a clear problem with advice, and nothing half-made stays."""

from typing import Any

import pytest

from launcher.cloud import Cloud
from launcher.lab.plan import OUTSIDE_ADDRESS
from tests.lab.client import Api, eventually
from tests.lab.machines import inside

GUEST = f"http://{OUTSIDE_ADDRESS}/mica-guest.qcow2"


def images_on_the_server(cloud: Cloud) -> set[str]:
    return set(inside(cloud, "storage", "find", "/srv/images", "-type", "f").split())


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"url": f"http://{OUTSIDE_ADDRESS}/nothing-here.qcow2"}, "http_status"),
        ({"url": "http://nowhere.invalid/x.qcow2"}, "name_server_silent"),
        ({"url": GUEST, "checksum": "sha256:" + "0" * 64}, "checksum_mismatch"),
        ({"url": "http://127.0.0.1/x.qcow2"}, "address_refused"),
        ({"url": "http://10.99.0.1:8427/x.qcow2"}, "address_refused"),
        ({"url": "http://169.254.169.254/latest"}, "address_refused"),
        ({"url": f"http://{OUTSIDE_ADDRESS}:1/x.qcow2"}, "server_unreachable"),
    ],
)
def test_an_image_that_cannot_be_fetched_leaves_nothing(
    api: Api, cloud: Cloud, asked: dict[str, str], code: str
) -> None:
    before = images_on_the_server(cloud)
    job = api.job(api.post("images/", {"name": "bad", **asked}, expect=202))
    assert job["state"] == "failed"
    assert job["error"]["detail"]
    assert job["error"]["advice"]
    assert job["error"]["code"] == code
    assert not [image for image in api.list("images") if image["name"] == "bad"]
    assert images_on_the_server(cloud) == before


def test_taken_and_foreign_addresses_are_refused_with_the_reason(api: Api) -> None:
    hello = api.named("instances", "hello")
    network = hello_network = api.get(hello["url"])["nics"][0]["l3_network"]
    assert network == hello_network
    body: dict[str, Any] = {
        "name": "never",
        "image": hello["image"],
        "instance_offering": hello["instance_offering"],
        "nics": [{"l3_network": network, "ip": hello["addresses"][0]}],
    }
    taken = api.post("instances/", body, expect=409)
    assert "hello" in str(taken)
    assert taken["advice"]
    body["nics"][0]["ip"] = "203.0.113.77"
    assert "ip" in str(api.post("instances/", body, expect=400))
    body["nics"][0]["ip"] = None
    body["instance_offering"] = None
    assert api.post("instances/", {**body, "colour": "red"}, expect=400)["code"] == "unknown_field"
    assert not api.list("instances", q="never")


def test_more_than_any_host_has_names_every_host(api: Api) -> None:
    hello = api.get(api.named("instances", "hello")["url"])
    body = {
        "name": "giant",
        "image": hello["image"],
        "cpu": 1,
        "memory_bytes": 1024**4,
        "nics": [{"l3_network": hello["nics"][0]["l3_network"]}],
    }
    said = api.post("instances/", body, expect=409)
    assert said["code"] == "no_host_fits"
    assert {reason["name"] for reason in said["reasons"]} == {"host-1", "host-2"}


def test_a_host_with_the_wrong_password_leaves_nothing(api: Api, cloud: Cloud) -> None:
    """Against host-2's own sshd by another name: the address itself is taken."""
    cluster = api.named("clusters", "lab")["uuid"]
    said = api.post("hosts/", {"cluster": cluster, "address": "10.99.0.12", "ssh_password": "no"}, expect=409)
    assert said["code"] == "address_in_use"
    inside(cloud, "storage", "ip", "addr", "replace", "10.99.0.22/24", "dev", "eth0")
    try:
        job = api.job(
            api.post("hosts/", {"cluster": cluster, "address": "10.99.0.22", "ssh_password": "no"}, expect=202)
        )
        assert (job["state"], job["error"]["code"]) == ("failed", "ssh_secret_wrong")
        assert job["error"]["advice"]
        assert {host["name"] for host in api.list("hosts")} == {"host-1", "host-2"}
        job = api.job(
            api.post("hosts/", {"cluster": cluster, "address": "10.99.0.99", "ssh_password": "x"}, expect=202)
        )
        assert (job["state"], job["error"]["code"]) == ("failed", "no_route")
    finally:
        inside(cloud, "storage", "ip", "addr", "del", "10.99.0.22/24", "dev", "eth0")


def test_a_changed_host_key_is_refused_until_it_is_confirmed(api: Api, cloud: Cloud) -> None:
    host = api.named("hosts", "host-2")
    machine = cloud.machine("host-2")
    inside(cloud, "host-2", "cp", "-a", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/kept")
    inside(cloud, "host-2", "rm", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub")
    inside(cloud, "host-2", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key")
    try:
        access = {"ssh_password": machine.password()}
        job = api.job(api.post(f"hosts/{host['uuid']}/reconnect/", access, expect=202))
        assert (job["state"], job["error"]["code"]) == ("failed", "host_key_changed")
        assert api.get(host["url"])["connection"] == "connected", "the agent that was there works on"
        shown = inside(cloud, "host-2", "ssh-keygen", "-l", "-f", "/etc/ssh/ssh_host_ed25519_key").split()[1]
        confirmed = api.post(f"hosts/{host['uuid']}/reconnect/", {**access, "host_key_fingerprint": shown}, expect=202)
        api.done(confirmed)
        eventually(lambda: api.get(host["url"])["connection"] == "connected", 30, "host-2 is connected")
    finally:
        inside(cloud, "host-2", "rm", "-f", "/etc/ssh/kept")

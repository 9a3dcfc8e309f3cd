"""`./mica doctor` on a real cloud: planted leaks are found, mended by way of quarantine, and nothing is lost."""

import os
import uuid
from typing import Any

import pytest

from launcher.cloud import Cloud
from tests.lab.client import Api, eventually
from tests.lab.machines import doctor, domains, inside, is_well, links

HOST, SERVER = "host-1", "storage"
LEAKED, COPY, IMAGE, DOMAIN = (str(uuid.uuid4()) for _each in range(4))
XML = f"""<domain type='qemu'><name>{DOMAIN}</name><uuid>{DOMAIN}</uuid><memory unit='MiB'>32</memory>
<metadata><mica:instance xmlns:mica='https://mica.cloud/ns/domain/1' name='leaked' project=''/></metadata>
<os><type>hvm</type></os></domain>"""
ROWS = """
import uuid
from django.db.models import F
from cloud.infra.models import HostCapacity
from cloud.jobs.models import JobResource
from network.models import IpAddress, Nic
HostCapacity.objects.filter(host__name="host-1").update(cpu_used=F("cpu_used") + 1)
ended = JobResource.objects.filter(job__finished_at__isnull=False, resource_type="compute.Instance").first()
JobResource.objects.filter(pk=ended.pk).update(is_held=True)
nic = Nic.objects.first()
row = IpAddress.objects.get(holder=nic.pk)
IpAddress.objects.create(l3=row.l3, address="192.168.100.222", purpose="nic", holder=uuid.uuid4(), name="ghost",
                         project=row.project)
"""
FILES = {"volume_leak", "stranger_leak", "copy_leak", "image_leak"}
ON_WIRES = {"tap_leak", "bridge_leak", "uplink_leak", "namespace_leak", "dhcp_leak"}
IN_ROWS = {"host_books", "lock_leak", "address_leak"}


def kinds(found: dict[str, Any]) -> set[str]:
    return {finding["kind"] for finding in found["results"]}


@pytest.fixture
def quiet(api: Api, cloud: Cloud) -> None:
    """The cloud as the tests before left it, settled."""
    hello = api.named("instances", "hello")
    eventually(lambda: api.get(hello["url"])["state"] == "running", 60, "hello runs")
    eventually(lambda: is_well(cloud), 90, "a cloud that is well")


def put(cloud: Cloud, machine: str, path: str, text: str) -> None:
    inside(cloud, machine, "mkdir", "-p", os.path.dirname(path))
    assert cloud.machine(machine).enter(["tee", path], stdin=text).returncode == 0


def plant_on_wires(cloud: Cloud) -> None:
    """What the host's own pass, each minute, takes away too, but for the tap."""
    there = links(cloud, HOST)
    words = {
        "mt-0123456789a": ["tuntap", "add", "dev", "mt-0123456789a", "mode", "tap"],
        "mb-0123456789a": ["link", "add", "mb-0123456789a", "type", "bridge"],
        "vx-4711": ["link", "add", "vx-4711", "type", "vxlan", "id", "4711", "dstport", "4789"],
    }
    for name, command in words.items():
        if name not in there:
            inside(cloud, HOST, "ip", *command)
    if "l3-0123456789ab" not in inside(cloud, HOST, "ip", "netns", "list"):
        inside(cloud, HOST, "ip", "netns", "add", "l3-0123456789ab")
    l3 = inside(cloud, HOST, "ls", "/var/lib/mica-agent/dhcp").split()[0]
    entry = f"/var/lib/mica-agent/dhcp/{l3}/hosts/fa-00-00-00-00-77"
    put(cloud, HOST, entry, "fa:00:00:00:00:77,192.168.100.77,ghost\n")


def plant_the_rest(cloud: Cloud) -> None:
    put(cloud, HOST, "/srv/primary/volumes/notes.txt", "a stranger's notes")
    for path in (f"/srv/primary/volumes/{LEAKED}.qcow2", f"/srv/primary/cache/{COPY}.qcow2"):
        inside(cloud, HOST, "qemu-img", "create", "-q", "-f", "qcow2", path, "16M")
    put(cloud, SERVER, f"/srv/images/images/{IMAGE}/image.qcow2", "an image that nobody knows")
    put(cloud, HOST, "/run/leaked.xml", XML)
    virsh = ["virsh", "-c", "qemu:///system"]
    inside(cloud, HOST, *virsh, "define", "/run/leaked.xml")
    inside(cloud, HOST, *virsh, "start", DOMAIN)
    cloud.run_manage("shell", "-c", ROWS)


def test_planted_leaks_are_found_mended_and_not_lost(api: Api, cloud: Cloud, quiet: None, tidy: list[str]) -> None:
    tidy.append("near")
    near = api.running("near", host=api.named("hosts", HOST)["uuid"])
    plant_the_rest(cloud)
    seen: set[str] = set()
    for _try in range(3):
        plant_on_wires(cloud)
        code, found = doctor(cloud)
        assert code == 1
        seen |= kinds(found)
        if seen >= ON_WIRES:
            break
    assert seen == FILES | ON_WIRES | IN_ROWS | {"domain_leak"}, found["results"]
    before = inside(cloud, HOST, "sha256sum", f"/srv/primary/volumes/{LEAKED}.qcow2").split()[0]

    code, found = doctor(cloud, "--fix")
    assert (code, found["results"]) == (0, []), found
    assert is_well(cloud)
    assert DOMAIN not in domains(cloud, HOST)
    assert not {"mt-0123456789a", "mb-0123456789a", "vx-4711"} & links(cloud, HOST)
    assert api.get(near["url"])["state"] == "running"
    assert api.guest(near)["addresses"] == near["addresses"]
    kept = {thing["kind"]: thing for thing in found["quarantine"]}
    assert kept.keys() == FILES | {"domain_leak", "address_leak"}

    back = [kept[kind]["uuid"] for kind in ("volume_leak", "domain_leak", "image_leak")]
    for job in api.post("doctor/restore/", {"ids": back}, expect=202)["jobs"]:
        api.done({"job": job})
    assert inside(cloud, HOST, "sha256sum", f"/srv/primary/volumes/{LEAKED}.qcow2").split()[0] == before
    assert DOMAIN in domains(cloud, HOST)
    assert "nobody knows" in inside(cloud, SERVER, "cat", f"/srv/images/images/{IMAGE}/image.qcow2")

    code, found = doctor(cloud, "--fix")
    assert code == 0, found
    things = [thing["uuid"] for thing in found["quarantine"]]
    for job in api.post("doctor/purge/", {"ids": things}, expect=202)["jobs"]:
        api.done({"job": job})
    assert not inside(cloud, HOST, "ls", "/srv/primary/quarantine").split()
    assert doctor(cloud)[1]["quarantine"] == []


def test_a_busy_cloud_is_well(api: Api, cloud: Cloud, quiet: None, tidy: list[str]) -> None:
    """Looked at while instances are made and expunged."""
    names = [f"busy-{number}" for number in range(3)]
    tidy += names
    accepted = [api.create(name) for name in names]
    for _look in range(3):
        code, found = doctor(cloud)
        assert code == 0, found
    for each in accepted:
        api.done(each)
    assert is_well(cloud)

"""The guest image, built from packages and really booted: NoCloud, network, disk, agent, power button."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.guest.build import build
from tests.launcher.guest_machine import Guest

pytestmark = pytest.mark.lab

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFuU6uJt8fT72vzzeQbNDFmuTHh50AHzg1yRHvjzLKak someone@somewhere"
HASH = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
FIRST = {
    "meta-data": "instance-id: first\nlocal-hostname: from-meta\n",
    "user-data": f"""#cloud-config
hostname: web-1
chpasswd:
  expire: false
  users:
    - {{name: root, password: "{HASH}", type: hash}}
ssh_authorized_keys:
  - {KEY}
write_files:
  - path: /etc/app/conf
    permissions: '0640'
    content: |
      a = "b\\c"
      \tindented
runcmd:
  - [sh, -c, 'echo "it''s $1" > /root/list', sh, done]
  - echo text > /root/text
""",
    "vendor-data": f"#cloud-config\nchpasswd: {{list: ['root:overridden']}}\nssh_authorized_keys: ['{KEY} vendor']\n",
    "network-config": json.dumps(
        {
            "version": 2,
            "ethernets": {
                "nic1": {
                    "match": {"macaddress": "52:54:00:12:34:57"},
                    "addresses": ["10.9.0.5/24"],
                    "routes": [{"to": "default", "via": "10.9.0.1"}, {"to": "10.50.0.0/16", "via": "10.9.0.2"}],
                    "nameservers": {"addresses": ["10.9.0.53"], "search": ["example.org"]},
                    "mtu": 1400,
                },
                "nic0": {"match": {"macaddress": "52:54:00:12:34:56"}, "dhcp4": True},
            },
        }
    ),
}
SECOND = {
    "meta-data": "instance-id: second\nlocal-hostname: twin\n",
    "user-data": '#!/bin/sh\necho "$(hostname) $(ip -4 route | grep -c default)" > /root/script\n',
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guest")
    build(folder / "base.qcow2")
    image = folder / "disk.qcow2"
    base = ["-b", str(folder / "base.qcow2"), "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(image), "3G"], check=True)
    return image


@pytest.fixture(scope="module")
def first(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with Guest(disk, FIRST, tmp_path_factory.mktemp("first") / "run") as guest:
        yield guest


def test_takes_what_the_seed_says(first: Guest) -> None:
    assert first.run("hostname; cat /etc/hostname") == "web-1\nweb-1"
    assert first.run("cat /root/.ssh/authorized_keys") == f"{KEY} vendor\n{KEY}"
    assert first.run("cut -d: -f2 /etc/shadow") == HASH
    assert first.run("cat /etc/app/conf; stat -c %a /etc/app/conf /etc/app") == 'a = "b\\c"\n\tindented\n640\n755'


def test_static_and_dhcp_addresses(first: Guest) -> None:
    assert "inet 10.9.0.5/24" in first.run("ip -4 addr show dev eth1")
    assert "mtu 1400" in first.run("ip link show dev eth1")
    routes = first.run("ip route")
    assert "default via 10.9.0.1 dev eth1" in routes
    assert "10.50.0.0/16 via 10.9.0.2 dev eth1" in routes
    assert "search example.org\nnameserver 10.9.0.53" in first.run("cat /etc/resolv.conf")
    await_end(first)
    assert "inet 10.0.2.15/24" in first.run("ip -4 addr show dev eth0")


def test_commands_ran_after_the_network(first: Guest) -> None:
    await_end(first)
    assert first.run("cat /root/list /root/text") == "it's done\ntext"


def test_root_fills_its_disk(first: Guest) -> None:
    waiting = "i=0; while [ $i -lt 100 ] && [ $(stat -f -c %b /) -lt 700000 ]; do i=$((i+1)); usleep 100000; done"
    resized = first.run(f"{waiting}; stat -f -c %b /")
    assert int(resized) * 4096 > 2.7 * (1 << 30)


def test_login_prompts_and_services(first: Guest) -> None:
    processes = first.run("ps -o args")
    for wanted in ("getty 38400 tty1", "getty -L 115200 ttyS0", "dropbear -F", "acpid"):
        assert wanted in processes
    assert "web-1 login:" in (first.folder / "serial").read_text()


def test_agent_sets_a_password(first: Guest) -> None:
    before = first.run("cut -d: -f2 /etc/shadow")
    first.agent.ask("guest-set-user-password", username="root", password="bmV3", crypted=False)
    after = first.run("cut -d: -f2 /etc/shadow")
    first.agent.ask("guest-set-user-password", username="root", password="JDYkYSRi", crypted=True)  # $6$a$b
    assert after.startswith("$6$")
    assert after != before
    assert first.run("cut -d: -f2 /etc/shadow") == "$6$a$b"


def test_a_card_added_later_gets_an_address(first: Guest) -> None:
    first.control.ask("netdev_add", type="user", id="n2", net="10.77.0.0/24", restrict=True)
    first.control.ask("device_add", driver="virtio-net-pci", netdev="n2", id="nic2", mac="52:54:00:12:34:58")
    waiting = "i=0; while [ $i -lt 100 ] && ! ip -4 addr show dev eth2 | grep inet; do i=$((i+1)); usleep 100000; done"
    assert "10.77.0.15/24" in first.run(waiting)


@pytest.mark.parametrize(("machine", "cdrom"), [("q35", "virtio"), ("pc", "scsi")])
def test_another_identity_runs_its_script_and_powers_off(disk: Path, tmp_path: Path, machine: str, cdrom: str) -> None:
    overlay = tmp_path / "twin.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk.parent / "base.qcow2", "-F", "qcow2", overlay],
        check=True,
    )
    with Guest(overlay, SECOND, tmp_path / "run", machine=machine, cdrom=cdrom) as guest:
        await_end(guest)
        assert guest.run("cat /root/script").startswith("twin ")
        guest.power_off()
    with Guest(
        overlay, {**SECOND, "meta-data": "instance-id: third\nlocal-hostname: three\n"}, tmp_path / "again"
    ) as guest:
        await_end(guest)
        assert guest.run("hostname; cat /root/script").startswith("three\nthree ")


def await_end(guest: Guest) -> None:
    """Until the commands of the user data are done; the guest has no event for the outside to hear."""
    guest.run("i=0; while [ $i -lt 300 ] && [ ! -s /var/lib/cloud/result ]; do i=$((i+1)); usleep 100000; done")


def test_lease_with_classless_routes_and_mtu(first: Guest) -> None:
    lease = "interface=eth1 ip=10.9.8.7 mask=24 router=10.9.8.1 mtu=1380 dns=10.9.8.2"
    routes = "169.254.169.254/32 10.9.8.3 10.60.0.0/16 0.0.0.0 0.0.0.0/0 10.9.8.4"
    first.run(f"{lease} staticroutes='{routes}' /usr/share/udhcpc/default.script bound")
    table = first.run("ip route show dev eth1; ip link show dev eth1")
    for wanted in (
        "169.254.169.254 via 10.9.8.3",
        "10.60.0.0/16 dev eth1 scope link",
        "default via 10.9.8.4",
        "mtu 1380",
    ):
        assert wanted in table
    assert "via 10.9.8.1" not in table  # RFC 3442: the router option does not count beside them
    first.run(f"{lease} /usr/share/udhcpc/default.script bound")

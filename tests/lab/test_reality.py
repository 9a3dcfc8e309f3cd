"""Reality wins: what happens on hosts behind our back shows by itself."""

from launcher.cloud import Cloud
from tests.lab.client import Api, eventually
from tests.lab.machines import domains, inside


def state(api: Api, instance: dict[str, object]) -> str:
    return str(api.get(f"instances/{instance['uuid']}/")["state"])


def test_a_domain_killed_by_hand_shows_stopped_and_starts_again(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy.append("killed")
    instance = api.running("killed")
    inside(cloud, instance["host"]["name"], "pkill", "-9", "-f", f"guest={'killed'}|{instance['uuid']}")
    eventually(lambda: state(api, instance) == "stopped", 5, "the killed instance shown as stopped")
    assert api.get(f"instances/{instance['uuid']}/")["host"] is None
    api.done(api.post(f"instances/{instance['uuid']}/start/", expect=202))
    assert state(api, instance) == "running"


def test_a_guest_that_powers_off_is_stopped_and_left_so(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy.append("tired")
    instance = api.running("tired")
    api.guest(instance)
    inside(cloud, instance["host"]["name"], "virsh", "-c", "qemu:///system", "shutdown", instance["uuid"])
    eventually(lambda: state(api, instance) == "stopped", 30, "the guest's own shutdown seen")


def test_a_silent_host_and_its_return(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy += ["alone", "unhurt"]
    host_1, host_2 = api.named("hosts", "host-1"), api.named("hosts", "host-2")
    alone = api.running("alone", host=host_1["uuid"])
    cloud.machine("host-1").cut("eth0")
    try:
        # 15 s, but nobody is called disconnected in the first minute after Redis was killed (test_kill ran before).
        eventually(lambda: api.get(host_1["url"])["connection"] == "disconnected", 90, "host-1 shown as disconnected")
        eventually(lambda: state(api, alone) == "unknown", 15, "its instance shown as unknown")
        unhurt = api.running("unhurt", host=host_2["uuid"])
        assert unhurt["host"]["name"] == "host-2"
        said = api.post(
            "instances/",
            {
                "name": "nowhere",
                "image": unhurt["image"],
                "instance_offering": unhurt["instance_offering"],
                "nics": [{"l3_network": unhurt["nics"][0]["l3_network"]}],
                "host": host_1["uuid"],
            },
            expect=409,
        )
        assert said["code"] == "no_host_fits"
        assert said["reasons"][0]["name"] == "host-1"
    finally:
        cloud.machine("host-1").mend("eth0")
    eventually(lambda: api.get(host_1["url"])["connection"] == "connected", 40, "host-1 is back")
    eventually(lambda: state(api, alone) == "running", 20, "its instance is right again")
    assert alone["uuid"] in domains(cloud, "host-1")


def test_an_unknown_domain_is_never_touched(api: Api, cloud: Cloud) -> None:
    xml = "<domain type='qemu'><name>stranger</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
    machine = cloud.machine("host-1")
    assert machine.enter(["tee", "/run/stranger.xml"], stdin=xml).returncode == 0
    inside(cloud, "host-1", "virsh", "-c", "qemu:///system", "create", "/run/stranger.xml")
    try:
        inside(cloud, "host-1", "pkill", "-9", "libvirtd")
        eventually(
            lambda: machine.enter(["virsh", "-c", "qemu:///system", "list", "--name"]).returncode == 0,
            30,
            "libvirtd is back",
        )
        hello = api.named("instances", "hello")
        eventually(lambda: state(api, hello) == "running", 10, "instances outlive libvirtd")
        assert "stranger" in inside(cloud, "host-1", "virsh", "-c", "qemu:///system", "list", "--name")
    finally:
        machine.enter(["virsh", "-c", "qemu:///system", "destroy", "stranger"])


def test_what_ran_comes_back_after_the_host_restarted(api: Api, cloud: Cloud, tidy: list[str]) -> None:
    tidy += ["faithful", "resting"]
    host = api.named("hosts", "host-2")
    faithful = api.running("faithful", host=host["uuid"])
    resting = api.running("resting", host=host["uuid"])
    api.done(api.post(f"instances/{resting['uuid']}/stop/", {"is_forced": True}, expect=202))
    machine = cloud.machine("host-2")
    machine.kill()
    machine.start()
    machine.wait_ready()
    assert api.guest(faithful)["addresses"] == faithful["addresses"]
    assert state(api, resting) == "stopped"

"""The domain XML: whatever a user types, it is well-formed, says just that, and nothing is injected."""

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.common.driver import Rejected
from compute.drivers.libvirt import metadata
from compute.drivers.libvirt.domain_xml import DiskPlace, Place, build
from compute.drivers.libvirt.elements import document, element, printable
from compute.messages import DomainNic, DomainSpec, DomainVolume
from tests.compute.drivers.strategies import ANY_TEXT, SPECS

UUID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
SPEC = DomainSpec(
    uuid=UUID,
    name="web",
    cpu=2,
    memory_bytes=256 << 20,
    project="11111111-1111-4111-8111-111111111111",
    volumes=(
        DomainVolume("8c9e6679-7425-40de-944b-e07fc1f90ae7", "/srv/primary/volumes/a.qcow2"),
        DomainVolume("9c9e6679-7425-40de-944b-e07fc1f90ae7", "/dev/vg/b", "raw", is_shareable=True),
    ),
    nics=(DomainNic("ac9e6679-7425-40de-944b-e07fc1f90ae7", "fa:00:00:00:00:01", "mb-12345678901", 1450),),
)
PLACE = Place("qemu", Path("/run/mica-agent/vnc/x.sock"), Path("/run/mica-agent/serial/x.sock"), Path("/seeds/x.iso"))


def parsed(spec: DomainSpec = SPEC, place: Place = PLACE) -> ET.Element:
    return ET.fromstring(build(spec, place))


def read_back(domain: ET.Element) -> metadata.Mark | None:
    """The mark as libvirt would give it: its element without the namespace."""
    mark = domain.find("metadata")[0]  # type: ignore[index]
    for part in mark.iter():
        part.tag = part.tag.rpartition("}")[2]
    return metadata.read(ET.tostring(mark, encoding="unicode"))


@given(SPECS)
def test_every_domain_is_well_formed_and_says_what_was_asked(spec: DomainSpec) -> None:
    domain = parsed(spec)
    assert domain.findtext("uuid") == domain.findtext("name") == spec.uuid
    assert domain.findtext("memory") == str(spec.memory_bytes // 1024)
    assert domain.findtext("vcpu") == str(spec.cpu)
    disks = domain.findall("devices/disk[@device='disk']")
    assert [disk.find("source").get("file") for disk in disks] == [v.path for v in spec.volumes]  # type: ignore[union-attr]
    bridges = [nic.find("source").get("bridge") for nic in domain.findall("devices/interface")]  # type: ignore[union-attr]
    assert bridges == [nic.bridge for nic in spec.nics]
    mark = read_back(domain)
    assert mark is not None
    assert (mark.name, mark.project) == (printable(spec.name), spec.project)
    assert set(mark.nics.values()) <= {nic.uuid for nic in spec.nics}


@given(SPECS, ANY_TEXT)
def test_a_name_changes_no_other_part(spec: DomainSpec, name: str) -> None:
    def shape(domain: ET.Element) -> list[tuple[str, dict[str, str]]]:
        return [(e.tag, e.attrib) for e in domain.iter() if e.tag != "title" and not e.tag.endswith("}instance")]

    assert shape(parsed(dataclasses.replace(spec, name=name))) == shape(parsed(dataclasses.replace(spec, name="n")))


@given(ANY_TEXT)
def test_an_attribute_comes_out_as_it_went_in_or_is_refused(text: str) -> None:
    if all(c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff") for c in text):
        assert ET.fromstring(document(element("a", b=text))).get("b") == text
    else:
        with pytest.raises(Rejected) as refused:
            element("a", b=text)
        assert refused.value.code == "illegal_character"


@given(st.text())
def test_printable_is_one_line_that_xml_holds(text: str) -> None:
    shown = printable(text)
    assert not set(shown) & set("\r\n\t\x00")
    assert ET.fromstring(document(element("a", text=shown))).text == (shown or None)


def test_limits_of_a_disk() -> None:
    limited = DomainVolume(UUID, "/a", read_iops=500, write_iops=100, read_bytes_per_s=1 << 20)
    domain = parsed(dataclasses.replace(SPEC, volumes=(limited, *SPEC.volumes)))
    disks = domain.findall("devices/disk[@device='disk']")
    said = {each.tag: each.text for each in disks[0].iter() if each.tag.endswith("_sec")}
    assert said == {"read_iops_sec": "500", "write_iops_sec": "100", "read_bytes_sec": "1048576"}
    assert all(disk.find("iotune") is None for disk in disks[1:])


def test_the_first_volume_is_the_boot_disk() -> None:
    disks = parsed().findall("devices/disk[@device='disk']")
    assert [disk.find("target").get("dev") for disk in disks] == ["vda", "vdb"]  # type: ignore[union-attr]
    assert [boot.get("dev") for boot in parsed().findall("os/boot")] == ["hd"]
    assert disks[0].findtext("serial") == "8c9e6679742540de944b"
    assert disks[1].find("shareable") is not None


def test_block_devices_and_caches_are_the_hosts_to_say() -> None:
    second = SPEC.volumes[1].uuid
    place = dataclasses.replace(PLACE, disks={second: DiskPlace("block", "writeback")})
    first, block = parsed(place=place).findall("devices/disk[@device='disk']")
    assert (first.get("type"), first.find("driver").get("cache")) == ("file", "none")  # type: ignore[union-attr]
    assert (block.get("type"), block.find("source").get("dev")) == ("block", "/dev/vg/b")  # type: ignore[union-attr]
    assert block.find("driver").get("cache") == "writeback"  # type: ignore[union-attr]


@pytest.mark.parametrize(("machine", "bus"), [("pc", "ide"), ("q35", "scsi")])
def test_the_seed_is_on_a_bus_that_the_machine_has(machine: str, bus: str) -> None:
    domain = parsed(dataclasses.replace(SPEC, machine=machine))
    assert domain.find("devices/disk[@device='cdrom']/target").get("bus") == bus  # type: ignore[union-attr]
    assert parsed(place=dataclasses.replace(PLACE, seed=None)).find("devices/disk[@device='cdrom']") is None


@pytest.mark.parametrize(
    ("virt", "options", "mode"),
    [
        ("qemu", {}, "custom"),
        ("qemu", {"cpu_mode": "host-passthrough"}, "custom"),
        ("kvm", {}, "host-model"),
        ("kvm", {"cpu_mode": "host-passthrough"}, "host-passthrough"),
        ("kvm", {"cpu_mode": "<evil/>"}, "host-model"),
    ],
)
def test_emulated_guests_get_a_cpu_that_can_be_emulated(virt: str, options: dict[str, str], mode: str) -> None:
    domain = parsed(dataclasses.replace(SPEC, options=options), dataclasses.replace(PLACE, virt=virt))
    assert domain.get("type") == virt
    assert domain.find("cpu").get("mode") == mode  # type: ignore[union-attr]
    assert domain.find("maxMemory") is None, "it kills small guests"


def test_the_tap_has_a_name_of_ours() -> None:
    tap = parsed().find("devices/interface/target").get("dev")  # type: ignore[union-attr]
    assert tap == "mt-ac9e6679742"
    assert len(tap) <= 15


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu": 0},
        {"memory_bytes": 1000},
        {"memory_bytes": 0},
        {"volumes": (DomainVolume(UUID, "/a", "vmdk"),)},
        {"volumes": (DomainVolume(UUID, "/a\x00b"),)},
        {"volumes": tuple(DomainVolume(UUID, "/a") for _ in range(27))},
    ],
)
def test_what_has_no_place_in_a_domain_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        build(dataclasses.replace(SPEC, **changes), PLACE)  # type: ignore[arg-type]


def test_foreign_metadata_are_not_taken_for_ours() -> None:
    assert metadata.read("<instance name='a' project='p'><nic/></instance>") == metadata.Mark("a", "p")
    assert metadata.read("<vm/>") is None
    assert metadata.read("no xml") is None

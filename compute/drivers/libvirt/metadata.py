"""Mica's mark in a domain: what tells ours from foreign ones, and what the sampler tags its numbers with.

https://libvirt.org/formatdomain.html#general-metadata
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field

from compute.drivers.libvirt.elements import element, printable
from compute.messages import DomainSpec

NAMESPACE = "https://mica.cloud/ns/domain/1"
PREFIX = "mica"

ET.register_namespace(PREFIX, NAMESPACE)


@dataclass(frozen=True)
class Mark:
    """What the metadata say. `nics` maps tap names to NIC uuids."""

    name: str
    project: str
    nics: dict[str, str] = field(default_factory=dict)


def tap_name(nic: str) -> str:
    """The host's end of a network card; an interface name has at most 15 characters."""
    return "mt-" + nic.replace("-", "").lower()[:11]


def write(spec: DomainSpec) -> ET.Element:
    """The element that goes into `<metadata>`."""
    nics = (element(_tag("nic"), uuid=nic.uuid) for nic in spec.nics)
    return element(_tag("instance"), *nics, name=printable(spec.name), project=spec.project)


def read(text: str) -> Mark | None:
    """The mark in the element that libvirt gives for NAMESPACE, without its namespace; None when it makes no sense."""
    try:
        root = ET.fromstring(text)  # noqa: S314 (libvirt parsed and wrote it)
    except ET.ParseError:
        return None
    if root.tag != "instance":
        return None
    nics = [uuid for nic in root.findall("nic") if (uuid := nic.get("uuid"))]
    return Mark(root.get("name", ""), root.get("project", ""), {tap_name(uuid): uuid for uuid in nics})


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"

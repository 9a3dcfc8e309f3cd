"""Networks and the infrastructure below them, for tests."""

import itertools
import uuid
from typing import Any

from cloud.accounts.services import bootstrap
from cloud.common.actor import Actor, platform
from cloud.common.models import Connection
from cloud.infra.models import Agent, AgentKind, Cluster, Host, HostState, Zone
from network.models import IpAddress, IpRange, L2Kind, L2Network, L3Network, Nic
from network.services import l2 as l2_networks
from network.services import l3 as l3_networks
from network.services import nics, ranges

ACTOR: Actor = platform("test")
VTEP_CIDR = "10.99.1.0/24"
_numbers = itertools.count(1)


def zone(**fields: Any) -> Zone:
    fields.setdefault("project", bootstrap.admin_project())
    return Zone.objects.create(**{"name": f"zone-{next(_numbers)}", **fields})


def cluster(**fields: Any) -> Cluster:
    place = fields.pop("zone", None) or zone()
    return Cluster.objects.create(
        **{"name": f"cluster-{next(_numbers)}", "project": place.project, "zone": place, **fields}
    )


def cards(vtep: str | None = None, *, mtu: int = 1500, provider: bool = True) -> list[dict[str, Any]]:
    """Network cards as an agent reports them: eth1 with the VTEP address, eth2 bare."""
    found = [{"name": "eth1", "mac": "02:00:00:00:00:01", "mtu": mtu, "addresses": [f"{vtep}/24"] if vtep else []}]
    bare = {"name": "eth2", "mac": "02:00:00:00:00:02", "mtu": mtu, "addresses": ["fe80::1/64"]}
    return [*found, bare] if provider else found


def host(place: Cluster, vtep: str | None = None, **fields: Any) -> Host:
    """A connected host with an agent; `vtep` is its address for tunnels."""
    number = next(_numbers)
    shared: dict[str, Any] = {"name": f"host-{number}", "project": place.project, "address": f"host-{number}.test"}
    facts = fields.pop("facts", {"nics": cards(vtep)})
    machine = Agent.objects.create(kind=AgentKind.HOST, facts=facts, connection=Connection.CONNECTED, **shared)
    given: dict[str, Any] = {
        "cluster": place,
        "agent": machine,
        "state": HostState.READY,
        "connection": Connection.CONNECTED,
        **shared,
        **fields,
    }
    return Host.objects.create(**given)


def pool(place: Zone | None = None, *, start: int = 1000, end: int = 1099, **fields: Any) -> L2Network:
    return l2_networks.create(
        actor=ACTOR,
        zone=place or zone(),
        **{
            "name": f"pool-{next(_numbers)}",
            "kind": L2Kind.VXLAN_POOL,
            "vtep_cidr": VTEP_CIDR,
            "vni_ranges": [{"start": start, "end": end}],
            **fields,
        },
    )


def vxlan(of: L2Network | None = None, **fields: Any) -> L2Network:
    of = of or pool()
    return l2_networks.create(
        actor=ACTOR, zone=of.zone, **{"name": f"vxlan-{next(_numbers)}", "kind": L2Kind.VXLAN, "pool": of, **fields}
    )


def no_vlan(place: Zone | None = None, **fields: Any) -> L2Network:
    given = {"name": f"flat-{next(_numbers)}", "kind": L2Kind.NO_VLAN, "physical_interface": "eth2", **fields}
    project = given.pop("project", None)
    made = l2_networks.create(actor=ACTOR, zone=place or zone(), **given)
    return _owned(made, project)


def l3(l2: L2Network | None = None, *, cidr: str = "192.168.50.0/24", **fields: Any) -> L3Network:
    """An L3 network with one range; `start`, `end` and `gateway` narrow it."""
    narrowed = {name: fields.pop(name) for name in ("start", "end", "gateway") if name in fields}
    given = {"name": f"net-{next(_numbers)}", "ranges": [{"cidr": cidr, **narrowed}] if cidr else [], **fields}
    project = given.pop("project", None)
    return _owned(l3_networks.create(actor=ACTOR, l2=l2 or no_vlan(), **given), project)


def ip_range(project: Any = None, **fields: Any) -> IpRange:
    on = fields.pop("l3", None) or l3(cidr="")
    given = {"name": f"range-{next(_numbers)}", "cidr": "192.168.60.0/24", **fields}
    return _owned(ranges.add(actor=ACTOR, l3=on, **given), project)


def nic(on: L3Network | None = None, project: Any = None, **fields: Any) -> Nic:
    on = on or l3()
    return nics.create(
        on,
        **{
            "uuid": uuid.uuid4(),
            "instance_uuid": uuid.uuid4(),
            "instance_name": f"vm-{next(_numbers)}",
            "project": project or on.project,
            "device_index": 0,
            "actor": ACTOR,
            **fields,
        },
    )


def ip_address(project: Any = None, **fields: Any) -> IpAddress:
    made = nic(project=project, **fields)
    return IpAddress.objects.get(holder=made.pk)


def _owned(row: Any, project: Any) -> Any:
    if project is not None:
        row.project = project
        row.save(update_fields=["project"])
    return row

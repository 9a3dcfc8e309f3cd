"""The sections `networks` and `dhcp`: what each host should have, and who is told when that changes."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from django.db import transaction

from cloud.common.wire import Document
from cloud.config.services import value
from cloud.infra.models import Agent, Host
from cloud.infra.services.desired import provider, touch_all, touch_each
from network.messages import BridgeSpec, DhcpDesired, DhcpHost, DhcpNetwork, NetworksDesired, Route
from network.models import AddressPurpose, IpAddress, IpRange, L2Attachment, L2Kind, L2Network, L3Network, Nic, Vtep
from network.services import underlay
from network.services.names import hostname

NETWORKS, DHCP = "networks", "dhcp"


@provider(NETWORKS)
def networks(agent: Agent) -> Document:
    """Every L2 network attached to the host's cluster that the host can carry."""
    host = _host(agent)
    if host is None:
        return NetworksDesired().to_document()
    l2s = L2Network.objects.filter(clusters=host.cluster_id).exclude(kind=L2Kind.VXLAN_POOL)
    wanted = list(l2s.select_related("pool").order_by("pk"))
    endpoints = _Endpoints(wanted)
    specs = [
        _bridge(host, each, endpoints)
        for each in wanted
        if underlay.reason_against(host, each, endpoints.addresses) is None
    ]
    return NetworksDesired(specs).to_document()


@provider(DHCP)
def dhcp(agent: Agent) -> Document:
    """One DHCP server for each L3 network that has a NIC on the host, knowing those NICs."""
    host = _host(agent)
    if host is None:
        return DhcpDesired().to_document()
    nics: dict[UUID, list[Nic]] = defaultdict(list)
    for nic in Nic.objects.filter(host=host).order_by("mac"):
        nics[nic.l3_id].append(nic)
    servers = dict(IpAddress.objects.filter(l3__in=nics, purpose=AddressPurpose.DHCP).values_list("l3_id", "address"))
    ranges = {row.l3_id: row for row in IpRange.objects.filter(l3__in=nics)}
    lease_s = value("network.dhcp_lease")
    return DhcpDesired(
        [
            _server(l3, servers[l3.pk], ranges[l3.pk], nics[l3.pk], lease_s)
            for l3 in L3Network.objects.filter(pk__in=servers.keys() & ranges.keys()).order_by("pk")
        ]
    ).to_document()


@transaction.atomic
def host_spoke(agent: Agent) -> None:
    """A host's agent told its facts anew: its cards decide what it can carry, its endpoint is its peers' concern."""
    host = _host(agent)
    if host is None:
        return
    changed = underlay.refresh_vteps([host])
    peers = _agents(Host.objects.filter(cluster__l2_attachments__l2__pool__in=changed))
    # All at once, in one order: hosts of one pool speak at the same time when they start together.
    touch_each([(agent, NETWORKS), (agent, DHCP), *((peer, NETWORKS) for peer in peers)])


def vtep_gone(vtep: Vtep) -> None:
    """A tunnel endpoint is no more: its peers forget it."""
    touch_pools([vtep.pool])


def touch_pools(pools: Iterable[L2Network]) -> None:
    """The tunnel endpoints of these pools changed."""
    touch_clusters(L2Network.objects.filter(pool__in=list(pools)))


def touch_clusters(l2s: Iterable[L2Network]) -> None:
    """What the hosts of these networks' clusters should have changed."""
    touch_hosts(Host.objects.filter(cluster__l2_attachments__l2__in=list(l2s)))


def touch_hosts(hosts: Iterable[Host]) -> None:
    """The networks of these hosts changed."""
    touch_all(_agents(hosts), NETWORKS)


def touch_servers(l3: L3Network) -> None:
    """What the DHCP servers of the network say changed."""
    touch_all(_agents(Host.objects.filter(nics__l3=l3)), DHCP)


def _agents(hosts: Iterable[Host]) -> list[Agent]:
    return list(Agent.objects.filter(host__in=[host.pk for host in hosts]).distinct())


def _host(agent: Agent) -> Host | None:
    return Host.objects.filter(agent=agent).select_related("agent", "cluster").first()


class _Endpoints:
    """The tunnel endpoints of pools by (host, pool), and by cluster those of the hosts there."""

    def __init__(self, l2s: list[L2Network]) -> None:
        self.addresses: dict[tuple[UUID, UUID], str] = {}
        self._by_cluster: dict[tuple[UUID, UUID], list[str]] = defaultdict(list)
        self._clusters: dict[UUID, list[UUID]] = defaultdict(list)
        vteps = Vtep.objects.filter(pool__in={each.pool_id for each in l2s if each.pool_id})
        for host, pool, cluster, address in vteps.values_list("host_id", "pool_id", "host__cluster_id", "address"):
            self.addresses[host, pool] = address
            self._by_cluster[pool, cluster].append(address)
        for l2, cluster in L2Attachment.objects.filter(l2__in=l2s).values_list("l2_id", "cluster_id"):
            self._clusters[l2].append(cluster)

    def of(self, l2: L2Network) -> set[str]:
        """Endpoints of all hosts in all clusters of the network, whether their agents answer or not."""
        assert l2.pool_id is not None
        return {address for cluster in self._clusters[l2.pk] for address in self._by_cluster[l2.pool_id, cluster]}


def _bridge(host: Host, l2: L2Network, endpoints: _Endpoints) -> BridgeSpec:
    uuid = str(l2.pk)
    if l2.kind == L2Kind.VXLAN:
        assert l2.pool_id is not None
        assert l2.vni is not None
        local = endpoints.addresses[host.pk, l2.pool_id]
        return BridgeSpec(uuid, l2.mtu, "vxlan", vni=l2.vni, local=local, peers=sorted(endpoints.of(l2) - {local}))
    if l2.kind == L2Kind.VLAN:
        return BridgeSpec(uuid, l2.mtu, "vlan", interface=l2.physical_interface, vlan_id=l2.vlan_id or 0)
    return BridgeSpec(uuid, l2.mtu, "physical", interface=l2.physical_interface)


def _server(l3: L3Network, address: str, inside: IpRange, nics: list[Nic], lease_s: int) -> DhcpNetwork:
    return DhcpNetwork(
        l3=str(l3.pk),
        l2=str(l3.l2_id),
        address=address,
        prefix=inside.prefix,
        mtu=l3.mtu,
        gateway=inside.gateway or "",
        dns=list(l3.dns),
        domain=l3.domain,
        routes=[Route(each["destination"], each["via"]) for each in l3.routes],
        lease_s=lease_s,
        hosts=[
            DhcpHost(str(nic.pk), nic.mac, nic.address, hostname(nic.instance_name, nic.instance_uuid)) for nic in nics
        ],
    )

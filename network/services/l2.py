"""Acts on L2 networks: making them, attaching them to clusters, and back."""

import re
from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from cloud.common import deletion
from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Problem
from cloud.common.relations import nothing_blocks
from cloud.events.services import audit
from cloud.infra.models import Cluster, Host, Zone
from network.messages import VXLAN_OVERHEAD_BYTES
from network.models import L2Attachment, L2Kind, L2Network, Nic
from network.models.l2 import MTU_MAX, MTU_MIN, VLAN_ID_MAX
from network.services import desired, ipv4, underlay, vnis

DEFAULT_MTU = 1500
# What the kernel takes as the name of an interface (dev_valid_name), and no more than people use.
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_ON_INTERFACE = (L2Kind.NO_VLAN, L2Kind.VLAN)


def _is_pool(l2: L2Network, actor: Actor) -> Problem | None:
    if l2.kind == L2Kind.VXLAN_POOL:
        return None
    return Conflict(_("%(network)s is not a VXLAN pool.") % {"network": l2}, code="not_a_pool")


@transaction.atomic
def create(
    *,
    actor: Actor,
    zone: Zone,
    name: str,
    kind: str,
    description: str = "",
    physical_interface: str = "",
    vlan_id: int | None = None,
    pool: L2Network | None = None,
    vni: int | None = None,
    vtep_cidr: str = "",
    vni_ranges: Iterable[dict[str, int]] = (),
    mtu: int | None = None,
    clusters: Iterable[Cluster] = (),
) -> L2Network:
    """Make an L2 network, and attach it to `clusters` (a VXLAN network also to those of its pool).

    A VXLAN network takes the chosen `vni` or the lowest free one. `mtu` defaults to 1500, in a VXLAN to the pool's less
    50. Raises Invalid with the field that does not fit the kind, Exhausted or Conflict when there is no such VNI.
    """
    actor.require("l2_network.create", zone)
    vni_ranges = list(vni_ranges)
    _expect_fields(
        kind,
        physical_interface=physical_interface,
        vlan_id=vlan_id,
        pool=pool,
        vni=vni,
        vtep_cidr=vtep_cidr,
        vni_ranges=vni_ranges,
    )
    if kind in _ON_INTERFACE and not _INTERFACE.fullmatch(physical_interface):
        raise ipv4.invalid("physical_interface", _("This is not the name of a network interface, as eth1."))
    if kind == L2Kind.VXLAN_POOL:
        vtep_cidr = str(ipv4.network(vtep_cidr, "vtep_cidr"))
    if pool is not None and (pool.kind != L2Kind.VXLAN_POOL or pool.zone_id != zone.pk):
        raise ipv4.invalid("pool", _("This is not a VXLAN pool of the zone."))
    row = L2Network.objects.create(
        zone=zone,
        project_id=zone.project_id,
        name=name,
        description=description,
        kind=kind,
        physical_interface=physical_interface,
        vlan_id=vlan_id,
        pool=pool,
        vni=vnis.take(pool, vni) if pool is not None else None,
        vtep_cidr=vtep_cidr,
        mtu=_mtu(mtu, pool),
    )
    for span in vni_ranges:
        vnis.add_range(row, **span)
    audit.record("l2_network.create", actor=actor, resource=row, detail={"kind": kind, "vni": row.vni})
    inherited = Cluster.objects.filter(l2_attachments__l2=pool) if pool is not None else Cluster.objects.none()
    for cluster in {*clusters, *inherited}:
        attach(row, cluster=cluster, actor=actor)
    return row


@acting("l2_network.update")
def update(l2: L2Network, *, actor: Actor, name: str | None = None, description: str | None = None) -> L2Network:
    """Rename a network; what it is made of does not change."""
    l2.name = l2.name if name is None else name
    l2.description = l2.description if description is None else description
    l2.save(update_fields=["name", "description", "updated_at"])
    audit.record("l2_network.update", actor=actor, resource=l2)
    return l2


@acting("l2_network.attach")
def attach(l2: L2Network, *, cluster: Cluster, actor: Actor) -> None:
    """Give the network to all hosts of a cluster; a pool brings its networks along. Attached already is fine.

    Raises Invalid when the cluster is of another zone, Conflict (`interface_in_use`) when another network of the
    cluster is on the same interface (and VLAN).
    """
    if cluster.zone_id != l2.zone_id:
        raise ipv4.invalid("cluster", _("The cluster and the network are of different zones."), code="other_zone")
    # One at a time per cluster, so that two networks cannot take the same interface at once.
    Cluster.objects.select_for_update(no_key=True).get(pk=cluster.pk)
    rows = [l2, *l2.networks.all()]
    for row in rows:
        _expect_interface_free(row, cluster)
    L2Attachment.objects.bulk_create([L2Attachment(l2=row, cluster=cluster) for row in rows], ignore_conflicts=True)
    hosts = list(Host.objects.filter(cluster=cluster).select_related("agent"))
    pools = [row if row.kind == L2Kind.VXLAN_POOL else row.pool for row in rows]
    underlay.refresh_vteps(hosts, {pool for pool in pools if pool is not None})
    desired.touch_clusters(rows)
    audit.record("l2_network.attach", actor=actor, resource=l2, detail={"cluster": str(cluster.pk)})


@acting("l2_network.detach")
def detach(l2: L2Network, *, cluster: Cluster, actor: Actor) -> None:
    """Take the network from a cluster's hosts; a pool takes its networks along. Not attached is fine.

    Raises Conflict (`in_use`) while an instance on one of the hosts has a NIC of it.
    """
    rows = [l2, *l2.networks.all()]
    Cluster.objects.select_for_update(no_key=True).get(pk=cluster.pk)
    # Waits for those who are placing an instance on these networks right now: their NICs are seen below.
    attached = L2Attachment.objects.filter(l2__in=rows, cluster=cluster)
    held = [row.pk for row in attached.select_for_update().order_by("pk")]
    users = Nic.objects.filter(l3__l2__in=rows, host__cluster=cluster)
    if users.exists():
        raise Conflict(
            _("Instances in %(cluster)s use %(network)s.") % {"cluster": cluster, "network": l2},
            code="in_use",
            advice=_("Stop or move these instances first."),
            used_by=[{"kind": "instance", "name": nic.instance_name} for nic in users[:5]],
        )
    # The other clusters' hosts lose peers, this one's the whole network: all are told.
    hosts = list(Host.objects.filter(cluster__l2_attachments__l2__in=rows).distinct())
    L2Attachment.objects.filter(pk__in=held).delete()
    desired.touch_hosts(hosts)
    audit.record("l2_network.detach", actor=actor, resource=l2, detail={"cluster": str(cluster.pk)})


@acting("l2_network.delete", checks=[nothing_blocks])
def delete(l2: L2Network, *, actor: Actor) -> None:
    """Delete a network, on its hosts too. Raises Conflict (`in_use`) while L3 networks or a pool's networks use it."""
    hosts = list(Host.objects.filter(cluster__l2_attachments__l2=l2).distinct())
    audit.record("l2_network.delete", actor=actor, resource=l2)
    deletion.delete(l2)
    desired.touch_hosts(hosts)


@acting("l2_network.update", checks=[each(_is_pool)])
def add_vni_range(pool: L2Network, *, start: int, end: int, actor: Actor) -> None:
    """Let a pool give out more VNIs. Raises Conflict (`vni_range_overlap`) with a range of the same zone."""
    vnis.add_range(pool, start=start, end=end)
    audit.record("l2_network.update", actor=actor, resource=pool, detail={"vni_range": [start, end]})


def _expect_interface_free(l2: L2Network, cluster: Cluster) -> None:
    if l2.kind not in _ON_INTERFACE:
        return
    same = Q(kind=l2.kind, physical_interface=l2.physical_interface, vlan_id=l2.vlan_id)
    if l2.vlan_id is None:
        same = Q(kind=l2.kind, physical_interface=l2.physical_interface)
    other = L2Network.objects.filter(same, clusters=cluster).exclude(pk=l2.pk).first()
    if other is not None:
        raise Conflict(
            _("%(interface)s already carries %(other)s in %(cluster)s.")
            % {"interface": l2.physical_interface, "other": other, "cluster": cluster},
            code="interface_in_use",
            advice=_("Use that network, another interface or another VLAN."),
        )


def _expect_fields(kind: str, **given: Any) -> None:
    """Raise Invalid for a field that the kind needs and lacks, or has no use for."""
    needed = {
        L2Kind.NO_VLAN: {"physical_interface"},
        L2Kind.VLAN: {"physical_interface", "vlan_id"},
        L2Kind.VXLAN_POOL: {"vtep_cidr", "vni_ranges"},
        L2Kind.VXLAN: {"pool"},
    }[L2Kind(kind)]
    taken = needed | ({"vni"} if kind == L2Kind.VXLAN else set())
    for field, value in given.items():
        if field in needed and value in ("", None, []):
            raise ipv4.invalid(field, _("A network of this kind needs this."), code="required")
        if field not in taken and value not in ("", None, []):
            raise ipv4.invalid(field, _("A network of this kind has no use for this."), code="not_applicable")
    vlan_id = given["vlan_id"]
    if vlan_id is not None and not 1 <= vlan_id <= VLAN_ID_MAX:
        raise ipv4.invalid("vlan_id", _("A VLAN id is between 1 and 4094."))


def _mtu(wanted: int | None, pool: L2Network | None) -> int:
    most = MTU_MAX if pool is None else pool.mtu - VXLAN_OVERHEAD_BYTES
    mtu = wanted if wanted is not None else DEFAULT_MTU if pool is None else most
    if not MTU_MIN <= mtu <= most:
        raise ipv4.invalid("mtu", _("The MTU is between %(least)d and %(most)d.") % {"least": MTU_MIN, "most": most})
    return mtu

"""Layer 2: broadcast domains, where they are attached, and the tunnel endpoints of VXLAN."""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Resource

MTU_MIN, MTU_MAX = 576, 9216
VLAN_ID_MAX = 4094
VNI_MAX = 2**24 - 1


class L2Kind(models.TextChoices):
    NO_VLAN = "no_vlan", _("NoVLAN")
    VLAN = "vlan", _("VLAN")
    VXLAN_POOL = "vxlan_pool", _("VXLAN pool")
    VXLAN = "vxlan", _("VXLAN")


class L2Network(Resource):
    """A broadcast domain; attached to clusters, whose hosts each get its bridge.

    NoVLAN and VLAN stand on `physical_interface` of every host. A VXLAN network takes its `vni` from the ranges of a
    pool; the pool says by `vtep_cidr` which of a host's addresses the tunnels end on, and its `mtu` is the underlay's.
    """

    kind_word = "l2_network"

    zone = models.ForeignKey("infra.Zone", on_delete=models.PROTECT, related_name="l2_networks")
    kind = models.CharField(max_length=16, choices=L2Kind)
    physical_interface = models.CharField(max_length=15, blank=True, default="")
    vlan_id = models.PositiveSmallIntegerField(null=True, blank=True)
    pool = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="networks")
    vni = models.PositiveIntegerField(null=True, blank=True)
    vtep_cidr = models.CharField(max_length=43, blank=True, default="")
    mtu = models.PositiveIntegerField(default=1500)
    clusters = models.ManyToManyField("infra.Cluster", through="L2Attachment", related_name="l2_networks")

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="l2_created")]
        constraints = [
            models.UniqueConstraint(fields=["zone", "vni"], condition=Q(vni__isnull=False), name="l2_vni_once"),
            models.CheckConstraint(
                condition=Q(kind=L2Kind.VXLAN, pool__isnull=False, vni__isnull=False)
                | (~Q(kind=L2Kind.VXLAN) & Q(pool__isnull=True, vni__isnull=True)),
                name="l2_vxlan_has_pool_and_vni",
            ),
            models.CheckConstraint(
                condition=Q(kind=L2Kind.VLAN, vlan_id__gte=1, vlan_id__lte=VLAN_ID_MAX)
                | (~Q(kind=L2Kind.VLAN) & Q(vlan_id__isnull=True)),
                name="l2_vlan_has_id",
            ),
            models.CheckConstraint(condition=Q(mtu__gte=MTU_MIN, mtu__lte=MTU_MAX), name="l2_mtu_in_range"),
        ]


class L2Attachment(models.Model):
    """An L2 network on all hosts of a cluster."""

    l2 = models.ForeignKey(L2Network, on_delete=models.CASCADE, related_name="attachments")
    cluster = models.ForeignKey("infra.Cluster", on_delete=models.CASCADE, related_name="l2_attachments")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["l2", "cluster"], name="l2_attached_once")]


class VniRange(models.Model):
    """VNIs that a pool may give to its networks, both ends included. Ranges of one zone do not overlap."""

    pool = models.ForeignKey(L2Network, on_delete=models.CASCADE, related_name="vni_ranges")
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()

    class Meta:
        ordering = ["start"]
        constraints = [
            models.CheckConstraint(
                condition=Q(start__gte=1, end__gte=F("start"), end__lte=VNI_MAX), name="vni_range_in_order"
            )
        ]


class Vtep(models.Model):
    """Where the tunnels of a pool end on a host: its address in the pool's VTEP network, as its agent last said."""

    host = models.ForeignKey("infra.Host", on_delete=models.CASCADE, related_name="vteps")
    pool = models.ForeignKey(L2Network, on_delete=models.CASCADE, related_name="vteps")
    address = models.GenericIPAddressField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["host", "pool"], name="vtep_once")]

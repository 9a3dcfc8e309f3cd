"""Layer 3: addresses, the ranges they come from and the NICs that hold them."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Resource
from cloud.common.search import search_index, search_text
from network.models.l2 import L2Network


class L3Kind(models.TextChoices):
    FLAT = "flat", _("Flat network")


class L3Network(Resource):
    """Addresses, gateway and DNS of instances on an L2 network. All its ranges lie in one subnet.

    `routes` is a list of {destination, via}; `mtu` is what guests are told, at most the L2 network's.
    """

    kind_word = "l3_network"

    l2 = models.ForeignKey(L2Network, on_delete=models.PROTECT, related_name="l3_networks")
    kind = models.CharField(max_length=16, choices=L3Kind, default=L3Kind.FLAT)
    ip_version = models.PositiveSmallIntegerField(choices=[(4, "IPv4")], default=4)
    domain = models.CharField(max_length=253, blank=True, default="")
    dns = ArrayField(models.GenericIPAddressField(), default=list, blank=True)
    routes = models.JSONField(default=list, blank=True)
    mtu = models.PositiveIntegerField()

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="l3_created")]


class IpRange(Resource):
    """Addresses `start` to `end` (both included) of the subnet `start`/`prefix`.

    `first_free` is a hint that makes the search short: mostly, no address below it is free. It decides nothing.
    """

    kind_word = "ip_range"

    l3 = models.ForeignKey(L3Network, on_delete=models.PROTECT, related_name="ranges")
    start = models.GenericIPAddressField()
    end = models.GenericIPAddressField()
    prefix = models.PositiveSmallIntegerField()
    gateway = models.GenericIPAddressField(null=True, blank=True)
    first_free = models.GenericIPAddressField()

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="ip_range_created")]
        constraints = [models.CheckConstraint(condition=Q(end__gte=F("start")), name="ip_range_in_order")]


class AddressPurpose(models.TextChoices):
    NIC = "nic", _("Network card")
    DHCP = "dhcp", _("DHCP server")
    GATEWAY = "gateway", _("Gateway")
    RESERVED = "reserved", _("Reserved")


class IpAddress(Resource):
    """An address of an L3 network that is not free: who has it, for what. Freeing it is deleting the row.

    `holder` is the uuid of what has it: a NIC, the L3 network (its DHCP server), the range (its gateway); none for a
    reserved one. `name` is the holder's, for people.
    """

    kind_word = "ip_address"

    l3 = models.ForeignKey(L3Network, on_delete=models.PROTECT, related_name="addresses")
    address = models.GenericIPAddressField()
    purpose = models.CharField(max_length=16, choices=AddressPurpose)
    holder = models.UUIDField(null=True, blank=True)
    search_text = search_text("name", addresses=("address",))

    class Meta(Resource.Meta):
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="ip_address_created"),
            models.Index(fields=["holder"], name="ip_address_holder"),
            search_index("ip_address_search"),
        ]
        constraints = [models.UniqueConstraint(fields=["l3", "address"], name="ip_address_once")]


class Nic(Resource):
    """An instance's network card. `host` is where its instance is placed now, null when nowhere."""

    kind_word = "nic"

    l3 = models.ForeignKey(L3Network, on_delete=models.PROTECT, related_name="nics")
    instance_uuid = models.UUIDField(db_index=True)
    instance_name = models.CharField(max_length=255)
    device_index = models.PositiveSmallIntegerField()
    mac = models.CharField(max_length=17, unique=True)
    address = models.GenericIPAddressField()
    host = models.ForeignKey("infra.Host", null=True, blank=True, on_delete=models.PROTECT, related_name="nics")
    search_text = search_text("instance_name", "mac", addresses=("address",))

    @property
    def amounts(self) -> dict[str, int]:
        """What it counts for, by quota."""
        return {"addresses": 1}

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="nic_created"), search_index("nic_search")]
        constraints = [
            models.UniqueConstraint(fields=["l3", "address"], name="nic_address_once"),
            models.UniqueConstraint(fields=["instance_uuid", "device_index"], name="nic_device_index_once"),
            models.CheckConstraint(condition=Q(mac__regex=r"^fa(:[0-9a-f]{2}){5}$"), name="nic_mac_is_ours"),
        ]

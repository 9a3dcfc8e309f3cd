"""What the doctor looks for in the books of addresses: each NIC has its address, each address its NIC."""

import uuid
from collections.abc import Iterator

from django.db.models import Exists, OuterRef
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.constraints import told
from cloud.common.doctor import Finding, Look, check
from cloud.common.errors import Conflict
from cloud.common.text import filled
from cloud.common.wire import Document
from cloud.infra import quarantined
from network.models import AddressPurpose, IpAddress, Nic
from network.services import addresses

KEEP_RESERVED = _("keep it reserved until the quarantine ends, then free it")


def reserve(row: IpAddress) -> None:
    """Keep the address from everybody while what had it is in quarantine."""
    IpAddress.objects.filter(pk=row.pk).update(purpose=AddressPurpose.RESERVED, holder=None, name="quarantine")


def free(thing: Document) -> None:
    """The quarantine has ended: the address is free, unless somebody gave it another meaning."""
    rows = IpAddress.objects.filter(pk=thing["address"], purpose=AddressPurpose.RESERVED, holder=None)
    addresses.free(rows.filter(name="quarantine"))


def _set_aside(finding: Finding, actor: Actor) -> None:
    row = IpAddress.objects.select_for_update().filter(pk=finding.resource_uuid, purpose=AddressPurpose.NIC).first()
    if row is None or (row.holder and Nic.objects.filter(pk=row.holder).exists()):
        return
    rows = quarantined.serialised([row])
    reserve(row)
    quarantined.keep(str(uuid.uuid4()), finding, rows, keeper="")


@check(
    "address_leak",
    "leak",
    label=_("An address that no network card has"),
    mend=KEEP_RESERVED,
    fix=_set_aside,
    gone=free,
)
def address_leak(look: Look) -> Iterator[Finding]:
    holder = Nic.objects.filter(pk=OuterRef("holder"))
    for row in IpAddress.objects.filter(~Exists(holder), purpose=AddressPurpose.NIC).select_related("l3"):
        if not look.is_busy(row.holder):
            yield Finding(
                "address_leak",
                "ip_address",
                str(row.pk),
                f"{row.l3}: {row.address}",
                filled(_("It is kept for a network card of %(name)s that does not exist."), name=row.name),
                since=row.created_at,
                thing={"address": str(row.pk)},
            )


def _book(finding: Finding, actor: Actor) -> None:
    nic = Nic.objects.select_for_update(of=("self",)).select_related("l3").filter(pk=finding.resource_uuid).first()
    if nic is None:
        return
    taken = Conflict(_("Something else has the address by now."), code="address_taken")
    with told({"ip_address_once": taken}):
        IpAddress.objects.create(
            l3=nic.l3,
            address=nic.address,
            purpose=AddressPurpose.NIC,
            holder=nic.pk,
            name=nic.instance_name,
            project_id=nic.project_id,
        )


@check(
    "address_missing",
    "missing",
    label=_("A network card whose address is not booked"),
    mend=_("book it"),
    fix=_book,
)
def address_missing(look: Look) -> Iterator[Finding]:
    booked = IpAddress.objects.filter(l3=OuterRef("l3"), address=OuterRef("address"), holder=OuterRef("pk"))
    for nic in Nic.objects.filter(~Exists(booked)).select_related("l3"):
        yield Finding(
            "address_missing",
            "nic",
            str(nic.pk),
            f"{nic.instance_name}: {nic.address}",
            filled(_("The address could be given to another on %(network)s."), network=str(nic.l3)),
            since=nic.created_at,
        )

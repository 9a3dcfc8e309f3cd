"""What the doctor looks for in rows that belong to instances: volumes and NICs without theirs, NICs out of place."""

import uuid
from collections.abc import Iterator

from django.db.models import Exists, F, OuterRef, Q
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.doctor import Finding, Look, check
from cloud.common.text import filled
from cloud.common.wire import Document
from cloud.infra import quarantined
from cloud.infra.models import Agent, Host
from cloud.infra.services.desired import touch_all
from compute.models import Instance
from network import doctor_addresses as addresses
from network.models import AddressPurpose, IpAddress, Nic
from network.services import nics
from network.services.desired import DHCP
from storage.doctor import place_of
from storage.messages import THING_KEEPER
from storage.models import StorageCapacity, Volume, copies

_INSTANCE = Instance.objects.filter(pk=OuterRef("instance_uuid"))


def _is_orphan(finding: Finding) -> bool:
    return Volume.objects.filter(~Exists(_INSTANCE), pk=finding.resource_uuid, instance_uuid__isnull=False).exists()


def _release(finding: Finding) -> list[Document]:
    row = Volume.objects.filter(~Exists(_INSTANCE), pk=finding.resource_uuid).first()
    if row is None:
        return []
    rows = quarantined.serialised([row])
    copies.release(row)
    return rows


def _book(thing: Document) -> None:
    """The volume's row is back: so is its promise, whether there is room or not; its bytes are taken already."""
    row = Volume.objects.filter(pk=thing["name"]).first()
    if row is not None:
        rows = StorageCapacity.objects.filter(primary_storage=row.primary_storage_id, host=row.host_id)
        rows.update(used_bytes=F("used_bytes") + row.size_bytes)


@check(
    "volume_orphan",
    "leak",
    label=_("A volume of an instance that does not exist"),
    mend=_("move its file into the storage's quarantine, and its row with it"),
    keeper=THING_KEEPER,
    still=_is_orphan,
    settle=_release,
    back=_book,
)
def volume_orphan(look: Look) -> Iterator[Finding]:
    rows = Volume.objects.filter(~Exists(_INSTANCE), instance_uuid__isnull=False)
    for row in rows.select_related("primary_storage", "host__agent"):
        if not look.is_busy(row.pk, row.instance_uuid):
            agent = row.host.agent if row.host else None
            yield Finding(
                "volume_orphan",
                "volume",
                str(row.pk),
                row.name,
                filled(_("There is no instance %(uuid)s."), uuid=row.instance_uuid),
                agent=str(agent.pk) if agent else "",
                host=row.host.name if row.host else "",
                since=row.updated_at,
                thing={"place": place_of(row.primary_storage), "kind": "volume", "name": str(row.pk)},
                is_mendable=agent is not None,
            )


def _set_aside(finding: Finding, actor: Actor) -> None:
    """The NIC goes into quarantine; its host's DHCP server forgets it, its address stays with nobody."""
    row = Nic.objects.select_for_update(of=("self",)).filter(~Exists(_INSTANCE), pk=finding.resource_uuid).first()
    if row is None:
        return
    held = list(IpAddress.objects.filter(holder=row.pk, purpose=AddressPurpose.NIC))
    rows = quarantined.serialised([row, *held])
    touch_all(Agent.objects.filter(host=row.host_id), DHCP)
    Nic.objects.filter(pk=row.pk).delete()
    for address in held:
        addresses.reserve(address)
    quarantined.keep(str(uuid.uuid4()), finding, rows, keeper="")


def _free(thing: Document) -> None:
    if thing["address"]:
        addresses.free(thing)


@check(
    "nic_orphan",
    "leak",
    label=_("A network card of an instance that does not exist"),
    mend=_("take it away; its address stays reserved until the quarantine ends"),
    fix=_set_aside,
    gone=_free,
)
def nic_orphan(look: Look) -> Iterator[Finding]:
    held = IpAddress.objects.filter(holder=OuterRef("pk"), purpose=AddressPurpose.NIC).values("pk")[:1]
    for row in Nic.objects.filter(~Exists(_INSTANCE)).select_related("l3", "host").annotate(held=held):
        if not look.is_busy(row.pk, row.instance_uuid):
            yield Finding(
                "nic_orphan",
                "nic",
                str(row.pk),
                f"{row.instance_name}: {row.mac} {row.address}",
                filled(_("There is no instance %(uuid)s."), uuid=row.instance_uuid),
                host=row.host.name if row.host else "",
                since=row.created_at,
                thing={"address": str(row.held) if row.held else ""},
            )


def _place(finding: Finding, actor: Actor) -> None:
    nic = Nic.objects.filter(pk=finding.resource_uuid).first()
    if nic is None:
        return
    instance = Instance.objects.select_for_update(of=("self",)).filter(pk=nic.instance_uuid, activity="").first()
    if instance is None:
        return
    if instance.host_id:
        nics.place([nic], Host.objects.get(pk=instance.host_id))
    else:
        nics.unplace([nic])


@check(
    "nic_misplaced",
    "drift",
    label=_("A network card on another host than its instance"),
    mend=_("say that it is where its instance is"),
    fix=_place,
)
def nic_misplaced(look: Look) -> Iterator[Finding]:
    where = Instance.objects.filter(pk=OuterRef("instance_uuid"), activity="")
    rows = Nic.objects.filter(Exists(where)).annotate(at=where.values("host")[:1])
    differing = Q(at__isnull=True, host__isnull=False) | Q(at__isnull=False, host__isnull=True)
    for row in rows.filter(differing | ~Q(at=F("host"))).select_related("host"):
        if row.at != row.host_id and not look.is_busy(row.instance_uuid):
            yield Finding(
                "nic_misplaced",
                "nic",
                str(row.pk),
                f"{row.instance_name}: {row.mac} {row.address}",
                _("Its host serves it no addresses, or another one does."),
                host=row.host.name if row.host else "",
                since=row.updated_at,
            )

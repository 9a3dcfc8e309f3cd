"""VXLAN network identifiers: which a pool may give, and giving each once."""

from django.db import connection
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Conflict, Exhausted
from cloud.infra.models import Zone
from network.models import L2Network, VniRange
from network.models.l2 import VNI_MAX
from network.services import ipv4

# The series is not made at once: the search ends at the first VNI that no network of the zone has.
_FIRST_FREE = """
SELECT vni
FROM (SELECT r.pool_id, generate_series(r.start, r."end") AS vni
      FROM (SELECT * FROM network_vnirange WHERE pool_id = %(pool)s ORDER BY start) r) s
WHERE NOT EXISTS (SELECT 1 FROM network_l2network n WHERE n.zone_id = %(zone)s AND n.vni = s.vni OFFSET 0)
LIMIT 1
"""


def take(pool: L2Network, wanted: int | None = None) -> int:
    """A VNI for a new network of the pool: the wanted one, or the lowest free one; the pool's row is held for it.

    Raises Invalid (`vni_out_of_range`), Conflict (`vni_taken`) or Exhausted (`vnis_exhausted`).
    """
    # Networks are made rarely: one at a time per pool is simple, and quick enough.
    L2Network.objects.select_for_update(no_key=True).get(pk=pool.pk)
    if wanted is None:
        with connection.cursor() as cursor:
            cursor.execute(_FIRST_FREE, {"pool": pool.pk, "zone": pool.zone_id})
            row = cursor.fetchone()
        if row is None:
            raise Exhausted(
                _("%(pool)s has no free VNI left.") % {"pool": pool},
                code="vnis_exhausted",
                advice=_("Add a VNI range to the pool."),
            )
        return int(row[0])
    if not pool.vni_ranges.filter(start__lte=wanted, end__gte=wanted).exists():
        raise ipv4.invalid("vni", _("This VNI is in no range of the pool."), code="vni_out_of_range")
    if L2Network.objects.filter(zone=pool.zone_id, vni=wanted).exists():
        raise Conflict(
            _("The VNI %(vni)d is taken.") % {"vni": wanted},
            code="vni_taken",
            errors={"vni": [_("This VNI is taken.")]},
        )
    return wanted


def add_range(pool: L2Network, *, start: int, end: int) -> VniRange:
    """Add VNIs to a pool. Raises Invalid, or Conflict (`vni_range_overlap`) with a range of the same zone."""
    if not 1 <= start <= end <= VNI_MAX:
        raise ipv4.invalid("vni_ranges", _("A VNI range goes upward within 1 to %(most)d.") % {"most": VNI_MAX})
    # A host may have networks of several pools: a VNI means one network in the whole zone.
    Zone.objects.select_for_update(no_key=True).get(pk=pool.zone_id)
    meets = Q(start__lte=end, end__gte=start)
    other = VniRange.objects.filter(meets, pool__zone=pool.zone_id).select_related("pool").first()
    if other is not None:
        raise Conflict(
            _("This VNI range overlaps %(start)d–%(end)d of %(pool)s.")
            % {"start": other.start, "end": other.end, "pool": other.pool},
            code="vni_range_overlap",
            errors={"vni_ranges": [_("This overlaps another range of the zone.")]},
        )
    return VniRange.objects.create(pool=pool, start=start, end=end)

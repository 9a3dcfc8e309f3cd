"""Whether a host can carry networks: asked by compute's scheduler."""

from collections.abc import Callable, Iterable

from django.utils.translation import gettext as _

from cloud.infra.models import Host
from network.models import L2Attachment, L3Network, Vtep
from network.services import underlay


def reason_against(host: Host, l3s: Iterable[L3Network]) -> str | None:
    """Why the host cannot carry these networks, in words; None when it can."""
    return reasons_against(l3s)(host)


def reasons_against(l3s: Iterable[L3Network]) -> Callable[[Host], str | None]:
    """As `reason_against`, for many hosts: two queries in all. Hosts come with `select_related("agent")`."""
    wanted = {l3.pk: l3 for l3 in l3s}
    networks = list(L3Network.objects.filter(pk__in=wanted).select_related("l2", "l2__pool"))
    l2s = {l3.l2_id: l3.l2 for l3 in networks}
    attached = set(L2Attachment.objects.filter(l2__in=l2s).values_list("l2_id", "cluster_id"))
    pools = {l2.pool_id for l2 in l2s.values() if l2.pool_id}
    vteps = set(Vtep.objects.filter(pool__in=pools).values_list("host_id", "pool_id"))

    def reason(host: Host) -> str | None:
        for l3 in networks:
            if (l3.l2_id, host.cluster_id) not in attached:
                return _("%(network)s is not attached to its cluster.") % {"network": l3}
            against = underlay.reason_against(host, l3.l2, vteps)
            if against is not None:
                return against
        return None

    return reason

"""Whether a host can carry networks: asked by compute's scheduler."""

from collections.abc import Callable, Iterable

from django.utils.translation import gettext as _

from cloud.common.wire import Document
from cloud.infra.models import Host
from cloud.infra.services import desired as sections
from network.models import L3Network, Vtep
from network.services import attachments, underlay
from network.services.desired import DHCP, NETWORKS


def reason_against(host: Host, l3s: Iterable[L3Network]) -> str | None:
    """Why the host cannot carry these networks, in words; None when it can."""
    return reasons_against(l3s)(host)


def reasons_against(l3s: Iterable[L3Network]) -> Callable[[Host], str | None]:
    """As `reason_against`, for many hosts: four queries in all. Hosts come with `select_related("agent")`.

    Until the caller's transaction ends, none of the networks can be detached from a cluster.
    """
    wanted = {l3.pk: l3 for l3 in l3s}
    networks = list(L3Network.objects.filter(pk__in=wanted).select_related("l2", "l2__pool"))
    l2s = {l3.l2_id: l3.l2 for l3 in networks}
    attached = attachments.kept(l2s)
    pools = {l2.pool_id for l2 in l2s.values() if l2.pool_id}
    vteps = set(Vtep.objects.filter(pool__in=pools).values_list("host_id", "pool_id"))
    failing = sections.failing(None, NETWORKS, DHCP) if networks else {}

    def reason(host: Host) -> str | None:
        for l3 in networks:
            if (l3.l2_id, host.cluster_id) not in attached:
                return _("%(network)s is not attached to its cluster.") % {"network": l3}
            against = underlay.reason_against(host, l3.l2, vteps)
            if against is not None:
                return against
            trouble = failure_of(l3, failing.get(host.agent_id, {}) if host.agent_id else {})
            if trouble is not None:
                return _("Its network %(network)s is failing: %(failure)s") % {
                    "network": l3,
                    "failure": trouble["detail"],
                }
        return None

    return reason


def failure_of(l3: L3Network, failing: dict[str, Document]) -> Document | None:
    """What keeps a host from serving the network, {nature, code, detail}; `failing` is what fails there, by part.

    That is its bridge, its DHCP server, or all of the host's (`networks`, `dhcp`).
    """
    parts = (str(l3.l2_id), str(l3.pk), NETWORKS, DHCP)
    return next((failing[part] for part in parts if part in failing), None)

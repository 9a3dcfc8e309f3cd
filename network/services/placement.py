"""Whether a host can carry networks: asked by compute's scheduler."""

from collections.abc import Iterable
from uuid import UUID

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


def reasons_against(l3s: Iterable[L3Network]) -> "Reach":
    """As `reason_against`, for many hosts: four queries at most. Hosts come with `select_related("agent")`."""
    return Reach(l3s)


class Reach:
    """Which hosts can carry some networks, as read once; called with a host it says why not.

    Until the caller's transaction ends, none of the networks can be detached from a cluster.
    """

    def __init__(self, l3s: Iterable[L3Network]) -> None:
        wanted = {l3.pk: l3 for l3 in l3s}
        if all("l2" in l3._state.fields_cache for l3 in wanted.values()):
            self.networks = list(wanted.values())
        else:
            self.networks = list(L3Network.objects.filter(pk__in=wanted).select_related("l2__pool"))
        l2s = {l3.l2_id: l3.l2 for l3 in self.networks}
        self.attached = attachments.kept(l2s) if l2s else set()
        pools = {l2.pool_id for l2 in l2s.values() if l2.pool_id}
        vteps = Vtep.objects.filter(pool__in=pools).values_list("host_id", "pool_id")
        self.vteps = set(vteps) if pools else set()
        self.failing = sections.failing(None, NETWORKS, DHCP) if self.networks else {}

    def clusters(self) -> set[UUID] | None:
        """The clusters that all of the networks are attached to; None when there are no networks: any."""
        at = [{cluster for l2, cluster in self.attached if l2 == l3.l2_id} for l3 in self.networks]
        return set.intersection(*at) if at else None

    def __call__(self, host: Host) -> str | None:
        for l3 in self.networks:
            if (l3.l2_id, host.cluster_id) not in self.attached:
                return _("%(network)s is not attached to its cluster.") % {"network": l3}
            against = underlay.reason_against(host, l3.l2, self.vteps)
            if against is not None:
                return against
            trouble = failure_of(l3, self.failing.get(host.agent_id, {}) if host.agent_id else {})
            if trouble is not None:
                return _("Its network %(network)s is failing: %(failure)s") % {
                    "network": l3,
                    "failure": trouble["detail"],
                }
        return None


def failure_of(l3: L3Network, failing: dict[str, Document]) -> Document | None:
    """What keeps a host from serving the network, {nature, code, detail}; `failing` is what fails there, by part.

    That is its bridge, its DHCP server, or all of the host's (`networks`, `dhcp`).
    """
    parts = (str(l3.l2_id), str(l3.pk), NETWORKS, DHCP)
    return next((failing[part] for part in parts if part in failing), None)

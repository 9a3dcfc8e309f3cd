"""What infrastructure answers to lower and its own parts: who stands on what, and what machines hold."""

from typing import Any

from cloud.infra import usage
from cloud.infra.models import Cluster, Host, Zone
from cloud.infra.services import desired
from cloud.infra.usage import Use
from cloud.jobs.workflow import register_held

register_held(desired.is_held)


@usage.register
def inside(resource: Any) -> list[Use]:
    """Clusters of a zone, hosts of a cluster."""
    if isinstance(resource, Zone):
        return [usage.count("cluster", Cluster.objects.filter(zone=resource))]
    if isinstance(resource, Cluster):
        return [usage.count("host", Host.objects.filter(cluster=resource))]
    return []

"""The recycle bin's clock."""

import logging
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from cloud.common.actor import platform
from cloud.common.errors import Problem
from cloud.common.models import Connection
from cloud.config.services import value
from compute.models import Instance, InstanceState
from compute.services import instances

log = logging.getLogger(__name__)


def expunge_due() -> None:
    """Expunge what has been in the recycle bin for longer than the setting says."""
    oldest = Now() - timedelta(seconds=value("instance.expunge_delay_s"))
    due = Instance.objects.filter(state=InstanceState.DESTROYED, activity="", destroyed_at__lt=oldest)
    # What lies on a host that is away waits for it: each try would only be one more failed job.
    reachable = due.filter(Q(last_host=None) | Q(last_host__connection=Connection.CONNECTED))
    for instance in reachable[:100]:
        try:
            instances.expunge(instance, actor=platform("recycle bin"))
        except Problem as problem:
            log.warning("%s is not expunged yet: %s", instance.name, problem.detail)

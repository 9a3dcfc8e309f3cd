"""Waiting for what hosts report of a primary storage (`services.reports` wakes whoever waits)."""

from typing import Any

from django.utils.translation import gettext_lazy as _

from cloud.common.errors import Problem
from cloud.common.models import Connection
from cloud.common.text import filled
from cloud.infra.models import Host
from cloud.jobs.workflow import Context, WaitStep, minutes
from storage.models import ImageCache, StorageCapacity


def topic(storage: Any) -> str:
    """What is woken when a host reports this storage (a key)."""
    return f"storage:{storage}"


class _StorageWait(WaitStep):
    """Looks at `ctx["clusters"]`, the uuids of the clusters that matter; hosts that are away are not waited for."""

    def topics(self, ctx: Context) -> list[str]:
        return [topic(ctx.job.resource_uuid)]

    @staticmethod
    def hosts(ctx: Context) -> Any:
        return Host.objects.filter(cluster__in=ctx["clusters"], agent__connection=Connection.CONNECTED)


class StorageOnHosts(_StorageWait):
    """Each host makes the directories and says how much room there is."""

    label = _("Preparing the storage on the hosts")
    # Hosts tell again after four minutes: one report that was lost fails nothing.
    deadline = minutes(5)

    def is_met(self, ctx: Context) -> bool:
        reported = StorageCapacity.objects.filter(primary_storage=ctx.job.resource_uuid, host__in=self.hosts(ctx))
        if failed := reported.exclude(failure="").select_related("host").first():
            raise Problem(
                filled(
                    _("%(host)s cannot use the storage: %(failure)s"), host=str(failed.host), failure=failed.failure
                ),
                code="storage_not_usable",
                advice=_("Correct it on the host, or give another path."),
            )
        return bool(reported.exclude(reported_at=None).count() >= self.hosts(ctx).count())


class ImagesLeaveHosts(_StorageWait):
    """Each host removes the images that it kept for new volumes."""

    label = _("Removing cached images from the hosts")
    deadline = minutes(5)

    def is_met(self, ctx: Context) -> bool:
        kept = ImageCache.objects.filter(primary_storage=ctx.job.resource_uuid, host__in=self.hosts(ctx))
        return not kept.exists()

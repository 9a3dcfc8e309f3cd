"""The section `storages` of a machine's desired state: which storages it serves and which cached images leave."""

from collections import defaultdict

from cloud.common.wire import Document
from cloud.infra.models import Agent, DesiredSection
from cloud.infra.services import desired
from storage.messages import WantedStorage
from storage.models import BackupStorage, CacheState, ImageCache, PrimaryStorage
from storage.models.copies import SECTION


@desired.provider(SECTION)
def storages(agent: Agent) -> Document:
    """{"storages": [`WantedStorage`, …]} of a host or an image server."""
    evict: dict[object, list[str]] = defaultdict(list)
    leaving = ImageCache.objects.filter(host__agent=agent, state=CacheState.EVICTING)
    for storage, image in leaving.values_list("primary_storage_id", "image_uuid"):
        evict[storage].append(str(image))
    wanted = [
        WantedStorage(str(row.pk), row.kind, row.path, sorted(evict[row.pk]))
        for row in PrimaryStorage.objects.filter(clusters__hosts__agent=agent)
    ]
    wanted += [WantedStorage(str(row.pk), row.kind, row.path) for row in BackupStorage.objects.filter(agent=agent)]
    return {"storages": [vars(one) for one in wanted]}


def ensure(agent: Agent) -> None:
    """Have the section wanted of a machine that never heard of it, in the caller's transaction."""
    if not DesiredSection.objects.filter(agent=agent, section=SECTION).exists():
        desired.touch(agent, SECTION)

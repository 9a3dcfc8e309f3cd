"""Images near the hosts: which copies there are, what they promise, and when they go.

A copy that is expected goes with the last volume that expected it. A copy that is there stays for the next volume,
until its image is expunged; then it goes with its last volume. It has gone when the host's agent no longer lists it.
Of a copy that was to go and shall stay after all, nobody knows whether it is there: it is expected until the agent
tells.
"""

import uuid
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction

from cloud.infra.models import Agent, Host
from cloud.infra.services import desired
from storage.models import promises
from storage.models.image import Image
from storage.models.primary import PrimaryStorage, StorageCapacity
from storage.models.volume import CacheState, ImageCache, Volume

SECTION = "storages"
_TURNS = 5


def expect(image: Image, capacity: StorageCapacity) -> ImageCache | None:
    """The image's copy on this storage, locked; expected, and its bytes promised, when there was none.

    In the caller's transaction, who holds the capacity row. None when the bytes do not fit, or the copy is leaving.
    """
    host = capacity.host
    for _turn in range(_TURNS):
        new = ImageCache(
            uuid=uuid.uuid4(),
            image=image,
            image_uuid=image.pk,
            primary_storage=capacity.primary_storage,
            host=host,
            size_bytes=image.actual_size_bytes,
        )
        ImageCache.objects.bulk_create([new], ignore_conflicts=True)
        rows = ImageCache.objects.filter(image_uuid=image.pk, primary_storage=capacity.primary_storage, host=host)
        found = rows.select_for_update().first()
        if found is None:
            continue  # its last volume let it go between the two statements
        if found.state == CacheState.EVICTING:
            return None
        if found.pk != new.pk or promises.take(capacity, new.size_bytes, cluster=host.cluster if host else None):
            return found
        found.delete()
        return None
    return None


@transaction.atomic
def release(volume: Volume | UUID | str) -> bool:
    """Delete the volume's row and give back what it promised: once, however often and from wherever it is called.

    Called when its file is gone, or was never made. True when this call did it.
    """
    found = Volume.objects.filter(pk=getattr(volume, "pk", volume)).first()
    if found is None or not Volume.objects.filter(pk=found.pk).delete()[0]:
        return False
    promises.give_back(found.primary_storage_id, found.host_id, found.size_bytes)
    if found.cache_id:
        let_go(found.cache_id)
    return True


def let_go(cache: Any) -> None:
    """A volume no longer stands on the copy (a key), in the caller's transaction, who holds the capacity row."""
    found = ImageCache.objects.select_for_update().filter(pk=cache).first()
    if found is None or Volume.objects.filter(cache=found).exists():
        return
    if found.state == CacheState.PENDING:
        found.delete()
        promises.give_back(found.primary_storage_id, found.host_id, found.size_bytes)
    elif found.image_id is None:
        evict([found])


def evict(caches: Iterable[ImageCache]) -> list[desired.Wanted]:
    """Have these copies removed by their hosts; what to wait for. In the caller's transaction."""
    rows = list(caches)
    ImageCache.objects.filter(pk__in=[row.pk for row in rows]).update(state=CacheState.EVICTING)
    hosts = Host.objects.filter(pk__in={row.host_id for row in rows}, agent__isnull=False).select_related("agent")
    return desired.touch_all([host.agent for host in hosts if host.agent], SECTION)


def keep(caches: Any) -> None:
    """Take `evict` back for these copies (rows), unless their image is expunged. In the caller's transaction."""
    leaving = caches.filter(state=CacheState.EVICTING, image__isnull=False)
    hosts = Host.objects.filter(pk__in=list(leaving.values_list("host", flat=True)), agent__isnull=False)
    agents = [host.agent for host in hosts.select_related("agent") if host.agent]
    leaving.update(state=CacheState.PENDING)
    desired.touch_all(agents, SECTION)


def evict_image(image: Image) -> None:
    """The image is expunged: its copies that no volume stands on are removed. In the caller's transaction."""
    staying = ImageCache.objects.filter(image=image).exclude(state=CacheState.EVICTING)
    rows = list(staying.select_for_update().order_by("pk"))
    evict(row for row in rows if not Volume.objects.filter(cache=row).exists())


def note_ready(volumes: Iterable[Any]) -> None:
    """The copies that these volumes (keys) stand on are there."""
    waiting = ImageCache.objects.filter(volumes__in=list(volumes), state=CacheState.PENDING)
    ImageCache.objects.filter(pk__in=list(waiting.values_list("pk", flat=True))).update(state=CacheState.READY)


@transaction.atomic
def note_listed(agent: Agent, storage: PrimaryStorage, host: Host | None, cached: list[str]) -> None:
    """The agent lists the images it has. Of copies that no volume stands on, the others are forgotten, and an expected
    one that is listed is there."""
    idle = ImageCache.objects.filter(primary_storage=storage, host=host, volumes__isnull=True)
    gone = idle.exclude(image_uuid__in=cached)
    found = idle.filter(image_uuid__in=cached, state=CacheState.PENDING)
    if not gone.exists() and not found.exists():
        return
    list(StorageCapacity.objects.select_for_update().filter(primary_storage=storage, host=host))
    found.update(state=CacheState.READY)
    rows = list(gone.select_for_update(of=("self",)))
    for row in rows:
        row.delete()
        promises.give_back(storage, host, row.size_bytes)
    if any(row.state == CacheState.EVICTING for row in rows):
        desired.touch(agent, SECTION)

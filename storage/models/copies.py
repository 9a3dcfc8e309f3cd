"""Images near the hosts: which copies there are, what they promise, and when they go.

A copy that is expected goes with the last volume that expected it. A copy that is there stays for the next volume,
until its image is expunged; then it goes with its last volume. It has gone when the host's agent no longer lists it.
Of a copy that was to go and shall stay after all, nobody knows whether it is there: it is expected until the agent
tells.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from cloud.accounts.services import quotas
from cloud.common.quotas import Amounts, total
from cloud.infra.models import Agent, Host
from cloud.infra.services import desired
from storage.models import promises
from storage.models.image import Image
from storage.models.primary import PrimaryStorage, StorageCapacity
from storage.models.volume import CacheState, ImageCache, Volume

SECTION = "storages"


def expect_all(pairs: Iterable[tuple[Image, StorageCapacity]]) -> dict[tuple[UUID, UUID], ImageCache] | None:
    """The copies of images on storages, locked, by (image, capacity); expected, and their bytes promised, where there
    were none. In the caller's transaction, who holds the capacity rows.

    None when a copy is leaving, or the bytes of a new one do not fit; then the caller rolls back.
    """
    wanted = {(image.pk, capacity.pk): (image, capacity) for image, capacity in pairs}
    if not wanted:
        return {}
    # Copies come and go under their capacity's row only: what is not there now stays away until we are done.
    rows = ImageCache.objects.filter(
        Q(host__in={capacity.host_id for _image, capacity in wanted.values()}) | Q(host=None),
        image_uuid__in={image for image, _capacity in wanted},
        primary_storage__in={capacity.primary_storage_id for _image, capacity in wanted.values()},
    )
    there = {
        (row.image_uuid, row.primary_storage_id, row.host_id): row
        for row in rows.select_for_update(of=("self",)).order_by("pk")
    }
    found, new, promised = {}, [], defaultdict[UUID, int](int)
    for key, (image, capacity) in wanted.items():
        row = there.get((image.pk, capacity.primary_storage_id, capacity.host_id))
        if row is None:
            row = ImageCache(
                image=image,
                image_uuid=image.pk,
                primary_storage_id=capacity.primary_storage_id,
                host_id=capacity.host_id,
                size_bytes=image.actual_size_bytes,
            )
            new.append(row)
            promised[capacity.pk] += row.size_bytes
        elif row.state == CacheState.EVICTING:
            return None
        found[key] = row
    if new:
        ImageCache.objects.bulk_create(new)
        if not promises.take_all(promised):
            return None
    return found


def release(volume: Volume | UUID | str) -> bool:
    """Delete the volume's row and give back what it promised: once, however often and from wherever it is called.

    Called when its file is gone, or was never made. True when this call did it.
    """
    return bool(release_all([getattr(volume, "pk", volume)]))


@transaction.atomic
def release_all(volumes: Iterable[Any]) -> int:
    """As `release`, for several volumes (keys); returns how many it were."""
    dropped = drop_all(Volume.objects.filter(pk__in=list(volumes)))
    freed: dict[UUID, list[Amounts]] = defaultdict(list)
    for volume in dropped:
        freed[volume.project_id].append(volume.amounts)
    quotas.give_all({project: total(amounts) for project, amounts in freed.items()})
    return len(dropped)


def drop_all(volumes: Any) -> list[Volume]:
    """Delete the rows of volumes (a queryset) and give back their bytes, in the caller's transaction, who gives what
    they counted for to `quotas` when it takes nothing more. Returns those that this call deleted."""
    rows = list(volumes.select_for_update(of=("self",)).order_by("pk"))
    if not rows:
        return []
    places = Q()
    for row in rows:
        places |= Q(primary_storage=row.primary_storage_id, host=row.host_id)
    list(StorageCapacity.objects.select_for_update(no_key=True).filter(places).order_by("pk"))
    Volume.objects.filter(pk__in=[row.pk for row in rows]).delete()
    for row in rows:
        promises.give_back(row.primary_storage_id, row.host_id, row.size_bytes)
    for cache in sorted({row.cache_id for row in rows if row.cache_id}):
        let_go(cache)
    return rows


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
    one that is listed is there. One that is not written down, left by a job that was undone, is to leave."""
    _let_strangers_leave(agent, storage, host, cached)
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


def _let_strangers_leave(agent: Agent, storage: PrimaryStorage, host: Host | None, cached: list[str]) -> None:
    """Copies of images of ours only: a file whose image nobody knows is not removed here, the doctor sets it aside."""
    rows = ImageCache.objects.filter(primary_storage=storage, host=host, image_uuid__in=cached)
    known = set(rows.values_list("image_uuid", flat=True))
    strangers = [
        ImageCache(
            image_uuid=key,
            primary_storage=storage,
            host=host,
            size_bytes=0,  # nothing was promised for it, nothing is given back
            state=CacheState.EVICTING,
        )
        for key in Image.objects.filter(pk__in=cached).exclude(pk__in=known).values_list("pk", flat=True)
    ]
    if strangers:
        ImageCache.objects.bulk_create(strangers, ignore_conflicts=True)
        desired.touch(agent, SECTION)

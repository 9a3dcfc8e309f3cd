"""Images: added by URL, kept on an image server, deleted into the recycle bin, expunged."""

import logging
import re
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services import quotas
from cloud.accounts.services.bootstrap import admin_project
from cloud.common.actor import Actor, platform
from cloud.common.acts import acting
from cloud.common.errors import Conflict, Invalid, Missing, Problem, Text
from cloud.common.models import Availability, Connection
from cloud.config.services import value
from cloud.events.services import audit
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from storage.models import BackupStorage, CacheState, Image, ImageCache, ImageState, Media, StorageState
from storage.workflows.add_image import AddImage
from storage.workflows.expunge_image import ExpungeImage

log = logging.getLogger(__name__)

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")
EXPUNGED_AT_ONCE = 50
CHANGEABLE = ("name", "description", "platform", "has_guest_agent")


def _locked(image: Image) -> Image:
    found = Image.objects.select_for_update().filter(pk=image.pk).first()
    if found is None:
        raise Missing(_("There is no such resource."))
    return found


def _nothing_made(images: Sequence[Image], actor: Actor) -> dict[Any, Problem]:
    """Against expunging an image that instances are being made from."""
    expected = ImageCache.objects.filter(image__in=list(images), state=CacheState.PENDING, volumes__isnull=False)
    used = set(expected.values_list("image", flat=True))
    return {
        image.pk: Conflict(
            _("Instances are being made from %(image)s.") % {"image": image},
            code="in_use",
            advice=_("Wait until their jobs have ended."),
        )
        for image in images
        if image.pk in used
    }


@transaction.atomic
def add(
    *,
    actor: Actor,
    name: str,
    url: str,
    description: str = "",
    media: str = Media.ROOT_TEMPLATE,
    format: str = "",
    checksum: str = "",
    platform: str = "linux",
    has_guest_agent: bool = False,
    backup_storage: BackupStorage | None = None,
) -> tuple[list[Image], Job]:
    """Add an image by its URL: an image server fetches and checks it.

    Raises Invalid for a URL or checksum that makes no sense, Conflict when no image server can take it, QuotaExceeded.
    """
    actor.require("image.add")
    checksum = checksum.strip().lower()
    _check(url, checksum)
    server = _server(backup_storage, actor)
    image = Image.objects.create(
        uuid=uuid.uuid4(),
        name=name,
        description=description,
        project_id=actor.project or admin_project().pk,
        backup_storage=server,
        url=url,
        media=media,
        format=format,
        checksum=checksum,
        platform=platform,
        has_guest_agent=has_guest_agent,
        state=ImageState.DOWNLOADING,
    )
    job = jobs.open(AddImage, resource=image, actor=actor)
    quotas.take(image.project_id, image.amounts)
    return [image], job


@acting("image.update")
def update(image: Image, *, actor: Actor, **changes: Any) -> Image:
    """Change the name, the description and what is said of the guest in the image."""
    changed = [field for field in CHANGEABLE if field in changes]
    for field in changed:
        setattr(image, field, changes[field])
    image.save(update_fields=[*changed, "updated_at"])
    audit.record("image.update", actor=actor, resource=image, detail={"changed": changed})
    return image


@acting("image.delete", states=[ImageState.READY, ImageState.ERROR], lock=_locked)
def delete(image: Image, *, actor: Actor) -> None:
    """Put the image into the recycle bin; nothing is made from it any more, what was made stays."""
    _move(image, ImageState.DELETED, deleted_at=Now())
    audit.record("image.delete", actor=actor, resource=image)


@acting("image.recover", states=[ImageState.DELETED], lock=_locked)
def recover(image: Image, *, actor: Actor) -> None:
    """Take the image out of the recycle bin."""
    _move(image, ImageState.READY if image.content_sha256 else ImageState.ERROR, deleted_at=None)
    audit.record("image.recover", actor=actor, resource=image)


@acting("image.expunge", states=[ImageState.DELETED], checks=[_nothing_made], lock=_locked)
def expunge(image: Image, *, actor: Actor) -> Job:
    """Remove a deleted image for good, from the image server and from the hosts. Volumes made from it stay."""
    return jobs.open(ExpungeImage, resource=image, actor=actor)


def empty_bin() -> None:
    """Expunge the images whose time in the recycle bin is over; those in use are tried again the next time."""
    until = Now() - timedelta(seconds=value("image.expunge_period"))
    over = Image.objects.filter(state=ImageState.DELETED, activity="", deleted_at__lt=until)
    for image in over.order_by("deleted_at")[:EXPUNGED_AT_ONCE]:
        try:
            expunge(image, actor=platform("recycle bin"))
        except Problem as problem:
            log.info("image %s stays in the recycle bin: %s", image.pk, problem)


def _move(image: Image, new: ImageState, **changes: Any) -> None:
    Image.objects.filter(pk=image.pk).update(state=new, **changes)
    image.state = new


def _check(url: str, checksum: str) -> None:
    errors: dict[str, list[Text]] = {}
    if reason := _reason_against(url):
        errors["url"] = [reason]
    if checksum and not _CHECKSUM.fullmatch(checksum):
        errors["checksum"] = [_("Give sha256: and 64, or md5: and 32 hexadecimal digits.")]
    if errors:
        raise Invalid(_("The image cannot be added like this."), errors=errors)


def _reason_against(url: str) -> Text:
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return _("This is no URL.")
    if parts.scheme not in ("http", "https"):
        return _("Give a URL that begins with http:// or https://.")
    if not parts.hostname or any(not 32 < ord(letter) < 127 for letter in url):
        return _("Give a URL with a host, other characters percent-encoded.")
    if parts.username is not None or parts.password is not None:
        return _("Give a URL without user and password: it is shown to whoever sees the image.")
    return ""


def _server(wanted: BackupStorage | None, actor: Actor) -> BackupStorage:
    """The image server to use: the one asked for, or the roomiest."""
    usable = BackupStorage.objects.filter(
        state=StorageState.READY, availability=Availability.ENABLED, connection=Connection.CONNECTED
    )
    if wanted is not None:
        if not actor.sees(wanted):
            raise Missing(_("There is no such resource."))
        usable = usable.filter(pk=wanted.pk)
    # Held, so that a server on its way out is not chosen.
    server = usable.select_for_update(of=("self",)).order_by("-available_bytes", "created_at").first()
    if server is None:
        raise Conflict(
            _("No image server can take images now.")
            if wanted is None
            else _("The image server %(name)s cannot take images now.") % {"name": wanted},
            code="no_image_server",
            advice=_("Add an image server, enable one, or check its connection."),
        )
    return server

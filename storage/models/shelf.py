"""Images in the books of quotas: counted when they are added, measured when they are there, forgotten once."""

from typing import Any

from cloud.accounts.services import quotas
from storage.models.image import Image


def measure(image: Image) -> None:
    """Write the image down with the size it turned out to have, in the caller's transaction.

    Raises QuotaExceeded when its project may not have so many bytes.
    """
    before = Image.objects.select_for_update(of=("self",)).get(pk=image.pk).actual_size_bytes
    image.save()
    quotas.take(image.project_id, {"image_bytes": image.actual_size_bytes - before})


def forget(image: Any) -> None:
    """The image's (a key's) file is gone, or never came: its row goes, once. In the caller's transaction."""
    row = Image.objects.select_for_update(of=("self",)).filter(pk=image).first()
    if row is not None:
        row.delete()
        quotas.give(row.project_id, row.amounts)

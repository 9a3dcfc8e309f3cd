"""Images and the image servers they live on."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from cloud.common.models import Available, Connected, Resource, Stateful
from storage.models.primary import StorageState


class BackupStorageKind(models.TextChoices):
    IMAGESTORE = "imagestore", _("Image repository")


class BackupStorage(Resource, Stateful, Available, Connected):
    """A machine that images live on; people call it an image server. Bytes are as its agent reported them."""

    kind_word = "backup_storage"

    kind = models.CharField(  # type: ignore[assignment]
        max_length=16, choices=BackupStorageKind, default=BackupStorageKind.IMAGESTORE
    )
    agent = models.OneToOneField(
        "infra.Agent", null=True, blank=True, on_delete=models.PROTECT, related_name="backup_storage"
    )
    address = models.CharField(max_length=255)
    path = models.CharField(max_length=1024)
    total_bytes = models.BigIntegerField(default=0)
    available_bytes = models.BigIntegerField(default=0)
    failure = models.TextField(blank=True, default="")
    reported_at = models.DateTimeField(null=True, blank=True)

    State = StorageState

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="backup_storage_created")]
        constraints = [models.UniqueConstraint(fields=["address"], name="backup_storage_address_once")]


class ImageState(models.TextChoices):
    CREATING = "creating", _("Being created")
    DOWNLOADING = "downloading", _("Downloading")
    READY = "ready", _("Ready")
    ERROR = "error", _("Broken")
    DELETED = "deleted", _("In the recycle bin")


class ImageFormat(models.TextChoices):
    QCOW2 = "qcow2", _("qcow2")
    RAW = "raw", _("raw")
    ISO = "iso", _("ISO")
    VMDK = "vmdk", _("VMDK")
    VHDX = "vhdx", _("VHDX")


class Media(models.TextChoices):
    ROOT_TEMPLATE = "root_template", _("Root volume template")
    DATA_TEMPLATE = "data_template", _("Data volume template")
    ISO = "iso", _("ISO")


class Platform(models.TextChoices):
    LINUX = "linux", _("Linux")
    WINDOWS = "windows", _("Windows")
    OTHER = "other", _("Other")


class Image(Resource, Stateful):
    """A template of volumes, or an ISO.

    `size_bytes` is the virtual size of the disk, `actual_size_bytes` that of the file. `checksum` (`algorithm:hex`) is
    of what the user named by `url`; `content_sha256` is of the file kept, which `format` describes.
    """

    kind_word = "image"

    backup_storage = models.ForeignKey(BackupStorage, on_delete=models.PROTECT, related_name="images")
    url = models.CharField(max_length=2048)
    media = models.CharField(max_length=16, choices=Media, default=Media.ROOT_TEMPLATE)
    format = models.CharField(max_length=16, choices=ImageFormat, blank=True, default="")
    platform = models.CharField(max_length=16, choices=Platform, default=Platform.LINUX)
    has_guest_agent = models.BooleanField(default=False)
    size_bytes = models.BigIntegerField(default=0)
    actual_size_bytes = models.BigIntegerField(default=0)
    checksum = models.CharField(max_length=80, blank=True, default="")
    content_sha256 = models.CharField(max_length=64, blank=True, default="")
    deleted_at = models.DateTimeField(null=True, blank=True)

    @property
    def amounts(self) -> dict[str, int]:
        """What it counts for, by quota."""
        return {"images": 1, "image_bytes": self.actual_size_bytes}

    class Meta(Resource.Meta):
        indexes = [
            models.Index(fields=["created_at", "uuid"], name="image_created"),
            models.Index(fields=["deleted_at"], name="image_in_bin", condition=Q(state="deleted")),
        ]

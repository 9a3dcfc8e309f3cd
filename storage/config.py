"""Settings of storage that an administrator may change while the platform runs (reference A4)."""

from django.utils.translation import gettext_lazy as _

from cloud.config.registry import declare

GIB = 1024**3

declare(
    "primary_storage.overprovisioning",
    "ratio",
    1.0,
    minimum=1,
    maximum=1000,
    scopes=("zone", "cluster", "primary_storage"),
    label=_("Primary storage over-provisioning"),
    help=_("How many bytes of volumes may be promised for each byte of a primary storage."),
)
declare(
    "primary_storage.reserved_capacity",
    "size_bytes",
    GIB,
    minimum=0,
    maximum=1024 * 1024 * GIB,
    scopes=("zone", "cluster", "primary_storage"),
    label=_("Reserved capacity of primary storages"),
    help=_("Bytes of each primary storage that are kept free."),
)
declare(
    "backup_storage.reserved_capacity",
    "size_bytes",
    GIB,
    minimum=0,
    maximum=1024 * 1024 * GIB,
    scopes=("backup_storage",),
    label=_("Reserved capacity of image servers"),
    help=_("Bytes of each image server that are kept free."),
)
declare(
    "image.max_size",
    "size_bytes",
    1024 * GIB,
    minimum=1024**2,
    maximum=64 * 1024 * GIB,
    label=_("Largest image"),
    help=_("Images that are larger, as a file or as the disk in it, are refused."),
)
declare(
    "image.refused_networks",
    "text",
    "",
    label=_("Networks that images are not fetched from"),
    help=_("Further networks, as CIDRs with commas, besides loopback, link-local, management and storage networks."),
)
declare(
    "image.expunge_period",
    "duration_s",
    86400,
    minimum=60,
    maximum=366 * 86400,
    label=_("Images stay in the recycle bin"),
    help=_("After this time a deleted image is expunged."),
)

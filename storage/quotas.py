"""What of storage counts for quotas: volumes and images until they are expunged."""

from collections.abc import Collection, Mapping
from uuid import UUID

from django.db.models import Count, Q, Sum
from django.utils.translation import gettext_lazy as _

from cloud.common import quotas
from cloud.common.quotas import Amounts
from storage.models import Image, Volume, VolumeKind

quotas.declare("data_volumes", _("Data volumes"))
quotas.declare("volume_bytes", _("Size of volumes"), "bytes")
quotas.declare("images", _("Images"))
quotas.declare("image_bytes", _("Size of images"), "bytes")


@quotas.counted_by
def volumes(projects: Collection[UUID]) -> Mapping[UUID, Amounts]:
    rows = Volume.objects.filter(project__in=projects).order_by().values("project")
    data = Count("pk", filter=Q(kind=VolumeKind.DATA))
    return quotas.by_project(rows.annotate(data_volumes=data, volume_bytes=Sum("size_bytes", default=0)))


@quotas.counted_by
def images(projects: Collection[UUID]) -> Mapping[UUID, Amounts]:
    rows = Image.objects.filter(project__in=projects).order_by().values("project")
    return quotas.by_project(rows.annotate(images=Count("pk"), image_bytes=Sum("actual_size_bytes", default=0)))

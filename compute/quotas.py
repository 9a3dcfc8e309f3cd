"""What of compute counts for quotas. Instances count until they are expunged; CPU and memory while they are booked."""

from collections.abc import Collection, Mapping
from uuid import UUID

from django.db.models import Count, Q, Sum
from django.utils.translation import gettext_lazy as _

from cloud.common import quotas
from cloud.common.quotas import Amounts
from cloud.infra.services import capacity
from cloud.infra.services.capacity import Amount
from compute.models import Instance

quotas.declare("instances", _("Instances"))
quotas.declare("running_instances", _("Running instances"))
quotas.declare("cpu", _("Virtual CPUs of running instances"))
quotas.declare("memory_bytes", _("Memory of running instances"), "bytes")

_BOOKED = Q(is_reserved=True)


@quotas.counted_by
def counted(projects: Collection[UUID]) -> Mapping[UUID, Amounts]:
    rows = Instance.objects.filter(project__in=projects).order_by().values("project")
    return quotas.by_project(
        rows.annotate(
            instances=Count("pk"),
            running_instances=Count("pk", filter=_BOOKED),
            cpu_sum=Sum("cpu", filter=_BOOKED, default=0),
            memory_sum=Sum("memory_bytes", filter=_BOOKED, default=0),
        ),
        cpu="cpu_sum",
        memory_bytes="memory_sum",
    )


@capacity.counted_by
def booked(hosts: Collection[UUID]) -> Mapping[UUID, Amount]:
    rows = Instance.objects.filter(_BOOKED, host__in=hosts).order_by().values("host")
    sums = rows.annotate(cpu_sum=Sum("cpu"), memory_sum=Sum("memory_bytes"))
    return {row["host"]: Amount(row["cpu_sum"], int(row["memory_sum"])) for row in sums}

"""What of networks counts for quotas."""

from collections.abc import Collection, Mapping
from uuid import UUID

from django.db.models import Count
from django.utils.translation import gettext_lazy as _

from cloud.common import quotas
from cloud.common.quotas import Amounts
from network.models import L3Network, Nic

quotas.declare("l3_networks", _("L3 networks"))
quotas.declare("addresses", _("Addresses of network cards"))


@quotas.counted_by
def networks(projects: Collection[UUID]) -> Mapping[UUID, Amounts]:
    rows = L3Network.objects.filter(project__in=projects).order_by().values("project")
    return quotas.by_project(rows.annotate(l3_networks=Count("pk")))


@quotas.counted_by
def cards(projects: Collection[UUID]) -> Mapping[UUID, Amounts]:
    rows = Nic.objects.filter(project__in=projects).order_by().values("project")
    return quotas.by_project(rows.annotate(addresses=Count("pk")))

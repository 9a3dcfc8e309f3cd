"""What the doctor looks for in quotas: books that are not what there is."""

from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext_lazy as _

from cloud.accounts.models import Account, Project, QuotaUsage
from cloud.accounts.services import quotas
from cloud.common.doctor import ledger
from cloud.common.quotas import counted
from cloud.common.text import filled


def _differences() -> Iterator[tuple[Any, str, Any]]:
    """Books of accounts are those of all their projects. Two queries, and one for each who counts something."""
    rows = list(QuotaUsage.objects.select_related("account", "project"))
    projects: dict[Any, list[Any]] = {}
    accounts = [row.account_id for row in rows if row.account_id]
    for key, account in Project.objects.filter(account__in=accounts).values_list("pk", "account"):
        projects.setdefault(account, []).append(key)
    for row in rows:
        if row.project_id:
            projects[row.project_id] = [row.project_id]
    amounts = counted({key for keys in projects.values() for key in keys})
    for row in rows:
        owner = row.project_id or row.account_id
        needed = sum(amounts[key][row.name] for key in projects.get(owner, []))
        if needed != row.used:
            detail = filled(
                _("Of %(name)s %(kept)d are booked, %(needed)d are there."),
                name=row.name,
                kept=row.used,
                needed=needed,
            )
            yield row.pk, f"{row.project or row.account}: {row.name}", detail


def _recount(key: Any) -> None:
    row = QuotaUsage.objects.filter(pk=key).select_related("account", "project").first()
    owner: Account | Project | None = (row.project or row.account) if row else None
    if owner is not None:
        quotas.recount(owner)


ledger(
    "quota_books",
    label=_("An account or a project whose quota books do not add up"),
    resource_type="quota",
    differences=_differences,
    recompute=_recount,
    mend=_("count again"),
)

"""Which L2 networks are attached to which clusters, for those who build on it."""

from collections.abc import Iterable
from uuid import UUID

from django.db import connection

_KEEP = """
SELECT l2_id, cluster_id FROM network_l2attachment WHERE l2_id = ANY(%s::uuid[]) ORDER BY id FOR KEY SHARE
"""


def kept(l2s: Iterable[UUID]) -> set[tuple[UUID, UUID]]:
    """The (L2 network, cluster) pairs of these networks that are attached.

    None of them can be detached before the caller's transaction ends, and one that is being detached is waited for:
    so no bridge goes from under an instance that is about to start.
    """
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, [sorted({str(l2) for l2 in l2s})])
        return set(cursor.fetchall())

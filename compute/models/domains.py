from django.db import models

from cloud.common.models import Resource


class UnknownDomain(Resource):
    """A domain on a host that the platform did not define, or whose instance it does not know; listed, never touched.

    `created_at` is when it was first seen. Kept by what hosts report (`services.reality`).
    """

    kind_word = "unknown_domain"

    host = models.ForeignKey("infra.Host", on_delete=models.CASCADE, related_name="unknown_domains")
    domain_uuid = models.UUIDField()
    state = models.CharField(max_length=16)
    is_ours = models.BooleanField(default=False)

    class Meta(Resource.Meta):
        indexes = [models.Index(fields=["created_at", "uuid"], name="unknown_domain_created")]
        constraints = [models.UniqueConstraint(fields=["host", "domain_uuid"], name="unknown_domain_once")]

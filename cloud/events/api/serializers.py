"""What the API shows of the audit trail."""

from rest_framework import serializers

from cloud.common.api.serializers import ResourceSerializer
from cloud.events.models import AuditRecord


class AuditRecordSerializer(ResourceSerializer):
    detail = serializers.DictField(read_only=True)

    class Meta(ResourceSerializer.Meta):
        model = AuditRecord
        fields = [
            *("uuid", "created_at", "action", "result", "actor_uuid", "actor_name", "via", "address", "request_id"),
            *("project_uuid", "project_name", "resource_type", "resource_uuid", "resource_name", "job_uuid"),
            *("detail", "url"),
        ]

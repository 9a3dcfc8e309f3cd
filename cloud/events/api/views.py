"""The operation log, read-only."""

from django_filters import rest_framework as filters

from cloud.common.api.filters import ResourceFilterSet
from cloud.common.api.viewsets import ResourceViewSet
from cloud.events.api.serializers import AuditRecordSerializer
from cloud.events.models import AuditRecord


class AuditRecordFilterSet(ResourceFilterSet):
    """`actor` and `resource` are uuids; `since` and `until` bound the time, the later end excluded."""

    actor = filters.UUIDFilter("actor_uuid")
    resource = filters.UUIDFilter("resource_uuid")
    project = filters.UUIDFilter("project_uuid")
    job = filters.UUIDFilter("job_uuid")
    since = filters.IsoDateTimeFilter("created_at", "gte")
    until = filters.IsoDateTimeFilter("created_at", "lt")

    class Meta:
        model = AuditRecord
        fields = ("action", "result", "actor_name", "via", "resource_type", "resource_name", "address", "request_id")


class AuditRecordViewSet(ResourceViewSet):
    queryset = AuditRecord.objects.all()
    serializer_class = AuditRecordSerializer
    filterset_class = AuditRecordFilterSet
    search_fields = ("action", "actor_name", "resource_name")
    default_ordering = "-created_at"
    view_permission = "audit_record.view"

"""Where events are in the API."""

from cloud.events.api.views import AuditRecordViewSet

routes = [("audit-records", AuditRecordViewSet)]

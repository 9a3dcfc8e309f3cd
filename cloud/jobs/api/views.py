from cloud.common.api.acts import act
from cloud.common.api.viewsets import ResourceViewSet
from cloud.jobs import services
from cloud.jobs.api.serializers import JobDetailSerializer, JobSerializer
from cloud.jobs.models import Job


class JobViewSet(ResourceViewSet):
    """Everything that takes longer than a click."""

    queryset = Job.objects.all()
    serializer_class = JobDetailSerializer
    list_serializer_class = JobSerializer
    search_fields = ("resource_name", "workflow")
    ordering_fields = ("created_at",)
    default_ordering = "-created_at"
    filterset_fields = ("state", "workflow", "resource_uuid", "parent", "actor_uuid")
    cancel = act(services.cancel)

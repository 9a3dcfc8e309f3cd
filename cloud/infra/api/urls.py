from cloud.infra.api.doctor import DoctorViewSet
from cloud.infra.api.views import AgentViewSet, ClusterViewSet, HostViewSet, ZoneViewSet

routes = [
    ("zones", ZoneViewSet),
    ("clusters", ClusterViewSet),
    ("hosts", HostViewSet),
    ("agents", AgentViewSet),
    ("doctor", DoctorViewSet),
]

from cloud.infra.api.views import AgentViewSet, ClusterViewSet, HostViewSet, ZoneViewSet

routes = [
    ("zones", ZoneViewSet),
    ("clusters", ClusterViewSet),
    ("hosts", HostViewSet),
    ("agents", AgentViewSet),
]

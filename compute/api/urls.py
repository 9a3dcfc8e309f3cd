from compute.api.views import InstanceOfferingViewSet, InstanceViewSet, UnknownDomainViewSet

routes = [
    ("instances", InstanceViewSet),
    ("instance-offerings", InstanceOfferingViewSet),
    ("unknown-domains", UnknownDomainViewSet),
]

from compute.api.views import InstanceOfferingViewSet, InstanceViewSet

routes = [("instances", InstanceViewSet), ("instance-offerings", InstanceOfferingViewSet)]

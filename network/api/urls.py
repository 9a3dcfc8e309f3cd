"""The API's lists of networks."""

from network.api.views import IpAddressViewSet, IpRangeViewSet, L2NetworkViewSet, L3NetworkViewSet, NicViewSet

routes = [
    ("l2-networks", L2NetworkViewSet),
    ("l3-networks", L3NetworkViewSet),
    ("ip-ranges", IpRangeViewSet),
    ("ip-addresses", IpAddressViewSet),
    ("nics", NicViewSet),
]

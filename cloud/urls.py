"""The table of addresses: the one place that knows every app's. Lists are named in each app's `api/urls.py`."""

from django.urls import include, path

from cloud.accounts.api import urls as accounts
from cloud.common.api import router
from cloud.config.api import urls as config
from cloud.events.api import urls as events
from cloud.infra.api import urls as infra
from cloud.jobs.api import urls as jobs
from compute.api import urls as compute
from monitoring.api import urls as monitoring
from network.api import urls as network
from storage.api import urls as storage

APPS = (accounts, config, events, jobs, infra, network, storage, compute, monitoring)

for _app in APPS:
    for _prefix, _viewset in getattr(_app, "routes", []):
        router.register(_prefix, _viewset)

_singles = [address for app in APPS for address in getattr(app, "urlpatterns", [])]

urlpatterns = [
    path("api/v1/", include([*_singles, *router.urls()])),
    path("", include("cloud.portal.urls")),
    path("api/", include(router.last())),
]

handler400 = "cloud.portal.views.bad_request"
handler403 = "cloud.portal.views.forbidden"
handler404 = "cloud.portal.views.not_found"
handler500 = "cloud.portal.views.server_error"

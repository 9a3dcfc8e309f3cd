"""The table of the API's lists. An app names its own in `<app>/api/urls.py`; `cloud/urls.py` collects them."""

from typing import Any

from django.urls import URLPattern, URLResolver, path, re_path
from rest_framework.routers import SimpleRouter

from cloud.common.api import batch, links
from cloud.common.api.views import NoSuchRoute

_router = SimpleRouter()


def register(prefix: str, viewset: Any) -> None:
    """Serve a view set at `/api/v1/<prefix>/`; its URL names are `api-<prefix>-list` and `api-<prefix>-detail`."""
    _router.register(prefix, viewset, basename=f"api-{prefix}")
    viewset.prefix = prefix
    if hasattr(viewset, "verbs"):
        batch.serve(prefix, viewset)
    model = getattr(getattr(viewset, "queryset", None), "model", None)
    if model is not None:
        links.remember(model, prefix)


def urls() -> list[URLPattern | URLResolver]:
    """All registered lists."""
    return list(_router.urls)


def last() -> list[URLPattern | URLResolver]:
    """To be put behind everything else under `/api/`: what matches nothing is a problem document, not a page."""
    return [path("", NoSuchRoute.as_view()), re_path(r"^.+$", NoSuchRoute.as_view())]

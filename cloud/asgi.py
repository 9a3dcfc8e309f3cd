"""The web process: pages and API by Django, live connections by Channels."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloud.settings")
django_application = get_asgi_application()

from compute.api.sockets import StreamConsumer  # noqa: E402 - needs the apps to be loaded

application = ProtocolTypeRouter(
    {
        "http": django_application,
        # No origin to check here: the single-use ticket in the path is the whole right, no cookie is looked at.
        "websocket": URLRouter([path("ws/stream/<str:ticket>/", StreamConsumer.as_asgi())]),
    }
)

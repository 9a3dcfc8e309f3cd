"""The portal's own addresses, and the API's documentation."""

from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from cloud.portal import health, views

urlpatterns = [
    path("", views.home, name="home"),
    path("signin/<str:secret>/", views.sign_in_by_link, name="sign-in-by-link"),
    path("signout/", views.sign_out, name="sign-out"),
    path("healthz", health.healthz, name="healthz"),
    path("api/v1/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/v1/docs/", views.api_docs, name="api-docs"),
]

"""Where accounts are in the API."""

from django.urls import path

from cloud.accounts.api import views

routes = [
    ("accounts", views.AccountViewSet),
    ("projects", views.ProjectViewSet),
    ("users", views.UserViewSet),
    ("api-tokens", views.ApiTokenViewSet),
]
urlpatterns = [
    path("me/", views.MeView.as_view(), name="api-me"),
    path("quotas/", views.QuotasView.as_view(), name="api-quotas"),
]

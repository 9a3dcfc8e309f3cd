from django.urls import path

from cloud.jobs.api.views import JobViewSet, StuckView

routes = [("jobs", JobViewSet)]
urlpatterns = [path("stuck/", StuckView.as_view(), name="api-stuck")]

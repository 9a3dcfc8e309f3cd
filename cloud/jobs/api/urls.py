from cloud.jobs.api.views import JobViewSet

routes = [("jobs", JobViewSet)]

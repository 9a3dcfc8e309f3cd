from django.urls import path

from monitoring.api import views

routes: list[tuple[str, object]] = []
# Without a slash at the end, as Prometheus' own addresses.
urlpatterns = [
    path("metrics/query", views.MetricsQueryView.as_view(), name="api-metrics-query"),
    path("metrics/query_range", views.MetricsQueryRangeView.as_view(), name="api-metrics-query-range"),
    path("metrics/catalogue", views.MetricsCatalogueView.as_view(), name="api-metrics-catalogue"),
]

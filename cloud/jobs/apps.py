from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "cloud.jobs"
    label = "jobs"

    def ready(self) -> None:
        from cloud.jobs import permissions  # noqa: F401

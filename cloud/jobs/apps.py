from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "cloud.jobs"
    label = "jobs"

    def ready(self) -> None:
        from cloud.common.models import fill_job_finder
        from cloud.jobs import permissions, services  # noqa: F401

        fill_job_finder(services.at_work_on)

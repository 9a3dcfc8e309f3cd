from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "cloud.jobs"
    label = "jobs"

    def ready(self) -> None:
        from cloud.common import acts
        from cloud.common import batches as door
        from cloud.common.models import fill_job_finder
        from cloud.jobs import batches, cleanups, config, doctor, permissions, services  # noqa: F401

        fill_job_finder(services.at_work_on, cleanups.expect_none)
        acts.fill_holders(services.holders)
        door.fill_keeper(batches)

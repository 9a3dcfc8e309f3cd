from django.apps import AppConfig


class ComputeConfig(AppConfig):
    name = "compute"
    label = "compute"

    def ready(self) -> None:
        from compute import config, doctor, doctor_orphans, permissions, quotas, receivers, workflows  # noqa: F401
        from compute.workflows import lifecycle, recycle  # noqa: F401

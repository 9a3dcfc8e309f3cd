from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class StorageApp(AppConfig):
    name = "storage"
    label = "storage"
    verbose_name = _("Storage")

    def ready(self) -> None:
        from storage import config, doctor, doctor_images, permissions, quotas, receivers  # noqa: F401
        from storage.services import books, sections  # noqa: F401
        from storage.workflows import (  # noqa: F401
            add_backup_storage,
            add_image,
            add_primary_storage,
            detach_primary_storage,
            expunge_image,
        )

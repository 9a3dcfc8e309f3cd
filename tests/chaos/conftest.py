"""What chaos stands on: one cloud in memory for each file of cases, put back to what it was before each of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from cloud.common import pki
from cloud.config import services as config
from cloud.infra import streams
from tests.chaos.cases import Stage
from tests.chaos.cloud import Cloud


@pytest.fixture(autouse=True)
def db() -> None:
    """By its name pytest-django knows that these tests need the database; the stage sees to its state."""


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest,
    django_db_setup: None,
    django_db_blocker: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """The cases' world. The database is as it was before when the file is done."""
    folder = tmp_path_factory.mktemp("chaos")
    pki.init(folder / "pki")
    config.forget()
    with (
        django_db_blocker.unblock(),
        pytest.MonkeyPatch.context() as patch,
        override_settings(MICA={**settings.MICA, "pki": folder / "pki"}),
    ):
        streams._signing_key.cache_clear()
        cloud = Cloud.begin(patch, folder)
        try:
            yield Stage(cloud, hosts=getattr(request.module, "HOSTS", 1))
        finally:
            cloud.vault.close()
            streams._signing_key.cache_clear()

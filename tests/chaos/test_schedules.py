"""Hundreds of random schedules. A failing one is printed as the calls that lead to it, and is the same in every run."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.chaos.cases import Stage
from tests.chaos.schedules import Life

pytestmark = pytest.mark.chaos

HOSTS = 2
COMMON = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
EVERY_DAY = settings(COMMON, max_examples=200, stateful_step_count=20, derandomize=True)
AT_LENGTH = settings(COMMON, max_examples=2000, stateful_step_count=80)


@pytest.fixture
def life(stage: Stage) -> Iterator[type[Life]]:
    class Here(Life):
        pass

    Here.stage = stage
    yield Here
    stage.begin_anew()


def test_every_day(life: type[Life]) -> None:
    run_state_machine_as_test(life, settings=EVERY_DAY)


@pytest.mark.full
def test_at_length(life: type[Life]) -> None:
    run_state_machine_as_test(life, settings=AT_LENGTH)

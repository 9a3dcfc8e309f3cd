"""What is said is lost, comes twice or comes late, and Redis forgets everything: at every step."""

import pytest

from cloud.jobs import services as jobs
from cloud.jobs.models import Job, JobState
from tests.chaos.broker import Letter
from tests.chaos.cases import COVERED, ENDS, MOST, ON_MACHINES, STEPS, UNDOING_ON_MACHINES, Stage, each
from tests.chaos.cloud import document_of, is_command

pytestmark = pytest.mark.chaos

WHICH = ["command", "answer"]
WHAT = ["lost", "twice"]


def is_answer(letter: Letter, direction: str, position: int) -> bool:
    """Whether a machine says by it how this step went."""
    return letter.task == "jobs.answer" and document_of(letter)["key"].split(":")[1:3] == [str(position), direction]


class Post:
    """Handles the letters that `chosen` picks: `what` is `lost` (the first one), `twice`, or `held`."""

    def __init__(self, stage: Stage, chosen: object, what: str) -> None:
        self._cloud, self._chosen, self._what = stage.cloud, chosen, what
        self.met: list[Letter] = []
        stage.cloud.post = self

    def __call__(self, letter: Letter) -> bool:
        if not self._chosen(letter):  # type: ignore[operator]
            return True
        self.met.append(letter)
        if self._what == "twice":
            self._cloud.deliver(letter)
        return self._what == "twice" or (self._what == "lost" and len(self.met) > 1)


def was_skipped(job: Job, position: int) -> bool:
    return bool(job.steps.get(position=position).state == "skipped")


@pytest.mark.parametrize(("name", "position", "which", "what"), each(ON_MACHINES, WHICH, WHAT, daily=2))
def test_command_or_answer(stage: Stage, name: str, position: int, which: str, what: str) -> None:
    stage.prepare(name)
    job = stage.open()
    find = is_command if which == "command" else is_answer
    post = Post(stage, lambda letter: find(letter, "run", position), what)
    stage.cloud.settle()
    assert post.met or was_skipped(job, position)
    stage.ends(job, is_done=stage.is_done)


@pytest.mark.parametrize(("name", "position", "which", "what"), each(UNDOING_ON_MACHINES, WHICH, WHAT, daily=2))
def test_undo_or_its_answer(stage: Stage, name: str, position: int, which: str, what: str) -> None:
    prepared = stage.prepare(name)
    last = len(prepared.steps) - 1
    job = stage.open()
    find = is_command if which == "command" else is_answer
    post = Post(stage, lambda letter: find(letter, "undo", position), what)
    with stage.failing(prepared.steps[last], last):
        stage.cloud.settle()
        assert post.met or stage.ended(job).steps.get(position=position).state != "undone"
        stage.ends(job, position=last, is_done=False)


@pytest.mark.parametrize(("name", "position"), UNDOING_ON_MACHINES)
def test_run_comes_after_its_undo(stage: Stage, name: str, position: int) -> None:
    """The command is held up until the machine has taken the step back; then it comes, at once and again later."""
    stage.prepare(name)
    job = stage.open()
    post = Post(stage, lambda letter: is_command(letter, "run", position), "held")
    stage.cloud.rush()
    assert post.met
    jobs.cancel(job, actor=stage.world.admin)
    stage.cloud.settle()
    assert stage.ended(job).state == JobState.CANCELLED
    stage.cloud.post = None
    # Its deadline is not over for the machine, and the wish to have it broken off is forgotten: the journal alone is
    # in the way.
    stage.cloud.empty_redis()
    for letter in post.met:
        document_of(letter)["deadline"] += 86400.0
    for letter in post.met:
        stage.cloud.deliver(letter)
    stage.ends(job, is_done=False)
    for letter in post.met:
        stage.cloud.deliver(letter)
    stage.ends(job, is_done=False)
    stage.ends_well_again()


@pytest.mark.parametrize(("name", "position"), ON_MACHINES)
def test_older_jobs_command_comes_after_a_newer_one(stage: Stage, name: str, position: int) -> None:
    """Every command of the step comes once more when a newer job has worked on the resource."""
    stage.prepare(name)
    job = stage.open()
    seen: list[Letter] = []

    def copying(letter: Letter) -> bool:
        if is_command(letter, "run", position):
            seen.append(letter)
        return True

    stage.cloud.post = copying
    with stage.failing(stage.steps(name)[position], position):
        stage.cloud.settle()
    stage.cloud.heal()
    assert seen or was_skipped(job, position)
    if not stage.ends_well_again():
        return
    for letter in seen:
        stage.cloud.deliver(letter)
    stage.still_well()


@pytest.mark.parametrize(("name", "position", "how"), each(STEPS + ENDS, ["emptied", "restarted"]))
def test_redis_forgets(stage: Stage, name: str, position: int, how: str) -> None:
    """When the job has come to this step: its command, its answer, its kick, every heartbeat is gone."""
    stage.prepare(name)
    job = stage.open()
    done: list[bool] = []

    def forget() -> None:
        if not done and Job.objects.filter(pk=job.pk, cursor__gte=position).exists():
            done.append(True)
            stage.cloud.empty_redis() if how == "emptied" else stage.cloud.restart_redis()

    stage.cloud.after_task = forget
    stage.cloud.settle()
    assert done
    stage.ends(job, is_done=stage.is_done)


@pytest.mark.parametrize("most", MOST)
@pytest.mark.parametrize("name", COVERED)
def test_redis_forgets_at_any_moment(stage: Stage, name: str, most: int | None) -> None:
    """After the n-th thing that happened."""
    stage.prepare(name)
    stage.open()
    count = 0
    while stage.cloud.step():
        count += 1
    for nth in stage.some(range(count), name, most=most):
        job = stage.open()
        for _ in range(nth):
            stage.cloud.step()
        stage.cloud.empty_redis()
        stage.ends(job, is_done=stage.is_done)

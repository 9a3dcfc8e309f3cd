"""Commands at work: order, lanes, answers, cancelling, stopping."""

import threading
import time
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from cloud.agent import registry, work
from cloud.agent.registry import CommandHandler
from cloud.agent.work import Workshop
from cloud.common.driver import NotFound, Rejected, Transient
from cloud.common.wire import Answer, Message
from tests.cloud.agent.waiting import wait_until


@dataclass(frozen=True)
class Act(Message):
    kind: ClassVar[str] = "test.act"
    name: str = ""


@dataclass(frozen=True)
class Acted(Message):
    name: str
    count: int


@dataclass
class World:
    """Answers that came, and handlers that can be held at a gate."""

    workshop: Workshop
    answers: list[Answer] = field(default_factory=list)
    began: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def answer(self, key):
        return wait_until(lambda: next((a for a in self.answers if a.key == key), None))


@pytest.fixture
def world(machine, journal, monkeypatch):
    answers = []
    made = World(Workshop(machine, journal, answers.append, time.time), answers)

    def act(message, call):
        made.began.append(message.name)
        if message.name in made.gates:
            assert made.gates[message.name].wait(10)
        call.check_aborted()
        made.ended.append(message.name)
        return Acted(message.name, len(made.ended))

    def fail(error):
        def handler(message, call):
            raise error

        return handler

    handlers = {
        "test.act": CommandHandler(Act, act, False),
        "test.bulk": CommandHandler(Act, act, True),
        "test.patient": CommandHandler(Act, act, False, True),
        "test.nothing": CommandHandler(Act, lambda message, call: None, False),
        "test.rejected": CommandHandler(Act, fail(Rejected("disk_full", "The disk is full.")), False),
        "test.transient": CommandHandler(Act, fail(Transient("busy", "Busy.")), False),
        "test.missing": CommandHandler(Act, fail(NotFound("no_such", "Not there.")), False),
        "test.defect": CommandHandler(Act, fail(ZeroDivisionError("oh")), False),
    }
    for task, handler in handlers.items():
        monkeypatch.setitem(registry.COMMANDS, task, handler)
    yield made
    for gate in made.gates.values():
        gate.set()
    made.workshop.stop(5)


def test_result_is_the_answer(world, make_command):
    command = make_command(body={"name": "a"})
    world.workshop.take(command)
    answer = world.answer(command.key)
    assert (answer.body, answer.failure) == ({"name": "a", "count": 1}, None)
    wait_until(lambda: world.workshop.in_work() == [])


def test_handler_without_a_result_answers_an_empty_body(world, make_command):
    command = make_command("test.nothing")
    world.workshop.take(command)
    assert world.answer(command.key).body == {}


@pytest.mark.parametrize(
    ("task", "direction", "expected"),
    [
        ("test.rejected", "run", ("rejected", "disk_full")),
        ("test.transient", "run", ("transient", "busy")),
        ("test.missing", "run", ("not_found", "no_such")),
        ("test.missing", "undo", None),
        ("test.defect", "run", ("failed", "internal_error")),
        ("test.unheard_of", "run", ("unsupported", "unknown_command")),
    ],
)
def test_errors_become_failures(world, make_command, task, direction, expected):
    command = make_command(task, direction=direction)
    world.workshop.take(command)
    failure = world.answer(command.key).failure
    assert (failure and (failure.nature, failure.code)) == expected


def test_body_that_makes_no_sense_is_rejected(world, make_command, monkeypatch):
    @dataclass(frozen=True)
    class Needy(Message):
        kind: ClassVar[str] = "test.needy"
        wanted: str

    monkeypatch.setitem(registry.COMMANDS, "test.needy", CommandHandler(Needy, lambda m, c: None, False))
    command = make_command("test.needy", body={"other": 1})
    world.workshop.take(command)
    assert world.answer(command.key).failure.code == "malformed_command"


def test_run_past_its_deadline_does_not_act_but_an_undo_does(world, make_command):
    late, undo = make_command(deadline=1), make_command(deadline=1, direction="undo")
    world.workshop.take(late)
    assert world.answer(late.key).failure.code == "expired"
    world.workshop.take(undo)
    assert world.answer(undo.key).failure is None


def test_one_resource_is_worked_on_in_order_and_one_at_a_time(world, make_command):
    world.gates["first"] = threading.Event()
    commands = [make_command(step=str(n), body={"name": name}) for n, name in enumerate(["first", "second", "third"])]
    for command in commands:
        world.workshop.take(command)
    wait_until(lambda: world.began == ["first"])
    other = make_command(resource="r-2", job="job-2", body={"name": "other"})
    world.workshop.take(other)
    world.answer(other.key)
    assert world.began == ["first", "other"]
    wait_until(lambda: set(world.workshop.in_work()) == {c.key for c in commands})
    world.gates["first"].set()
    world.answer(commands[2].key)
    assert world.ended == ["other", "first", "second", "third"]


def test_repeated_key_in_work_is_left_alone(world, make_command):
    world.gates["a"] = threading.Event()
    command = make_command(body={"name": "a"})
    for _ in range(3):
        world.workshop.take(command)
    world.gates["a"].set()
    world.answer(command.key)
    wait_until(lambda: world.workshop.in_work() == [])
    assert world.began == ["a"]
    assert len(world.answers) == 1


def test_finished_key_is_answered_from_the_journal(world, make_command):
    command = make_command(body={"name": "a"})
    world.workshop.take(command)
    first = world.answer(command.key)
    wait_until(lambda: world.workshop.in_work() == [])
    world.workshop.take(command)
    wait_until(lambda: len(world.answers) == 2)
    assert world.answers[1] == first
    assert world.began == ["a"]


def test_bulk_work_does_not_starve_quick_work(world, make_command):
    for number in range(work.BULK_THREADS + 5):
        world.gates[f"bulk-{number}"] = threading.Event()
        world.workshop.take(
            make_command("test.bulk", job=f"b{number}", resource=f"b{number}", body={"name": f"bulk-{number}"})
        )
    wait_until(lambda: len(world.began) == work.BULK_THREADS)
    quick = [make_command(job=f"q{n}", resource=f"q{n}", body={"name": f"q{n}"}) for n in range(20)]
    for command in quick:
        world.workshop.take(command)
    for command in quick:
        world.answer(command.key)
    assert not [name for name in world.ended if name.startswith("bulk")]


def test_patient_work_does_not_starve_quick_work_nor_itself(world, make_command):
    many = work.QUICK_THREADS * 3
    for number in range(many):
        world.gates[f"p{number}"] = threading.Event()
        world.workshop.take(
            make_command("test.patient", job=f"p{number}", resource=f"p{number}", body={"name": f"p{number}"})
        )
    quick = [make_command(job=f"q{n}", resource=f"q{n}", body={"name": f"q{n}"}) for n in range(20)]
    for command in quick:
        world.workshop.take(command)
    for command in quick:
        world.answer(command.key)
    wait_until(lambda: len(world.began) == many + len(quick))
    assert len(world.ended) == len(quick)


def test_quick_work_waits_for_patient_work_on_its_own_resource(world, make_command):
    world.gates["stop"] = threading.Event()
    stop = make_command("test.patient", body={"name": "stop"})
    start = make_command(step="1", body={"name": "start"})
    world.workshop.take(stop)
    world.workshop.take(start)
    wait_until(lambda: world.began == ["stop"])
    world.gates["stop"].set()
    world.answer(start.key)
    assert world.ended == ["stop", "start"]


def test_queue_it_came_by_makes_work_bulk(world, make_command):
    for number in range(work.QUICK_THREADS):
        world.gates[f"a{number}"] = threading.Event()
        world.workshop.take(make_command(job=f"a{number}", resource=f"a{number}", body={"name": f"a{number}"}))
    wait_until(lambda: len(world.began) == work.QUICK_THREADS)
    command = make_command(job="z", resource="z", body={"name": "z"})
    world.workshop.take(command, is_bulk=True)
    assert world.answer(command.key).failure is None


def test_undo_cancels_its_run_and_waits_for_it(world, make_command):
    world.gates["a"] = threading.Event()
    run, undo = make_command(body={"name": "a"}), make_command("test.nothing", direction="undo")
    world.workshop.take(run)
    wait_until(lambda: world.began == ["a"])
    world.workshop.take(undo)
    world.gates["a"].set()
    assert world.answer(run.key).failure.nature == "aborted"
    assert world.answer(undo.key).failure is None
    assert world.ended == []


def test_run_waiting_behind_does_not_act_once_its_undo_was_taken(world, make_command):
    world.gates["a"] = threading.Event()
    first, run = make_command(body={"name": "a"}), make_command(step="1", body={"name": "b"})
    undo = make_command("test.nothing", step="1", direction="undo")
    for command in (first, run, undo):
        world.workshop.take(command)
    world.gates["a"].set()
    world.answer(undo.key)
    assert world.answer(run.key).failure.code in ("refused_undone", "aborted")
    assert world.began == ["a"]


def test_undo_does_not_wait_behind_its_run_that_has_no_thread_yet(world, make_command):
    for number in range(work.BULK_THREADS):
        world.gates[f"b{number}"] = threading.Event()
        world.workshop.take(
            make_command("test.bulk", job=f"b{number}", resource=f"b{number}", body={"name": f"b{number}"})
        )
    run, undo = make_command("test.bulk", body={"name": "a"}), make_command("test.nothing", direction="undo")
    world.workshop.take(run)
    world.workshop.take(undo)
    assert world.answer(undo.key).failure is None
    assert world.answer(run.key).failure.nature == "aborted"
    for gate in world.gates.values():
        gate.set()
    wait_until(lambda: len(world.ended) == work.BULK_THREADS)
    assert "a" not in world.began


def test_late_command_is_refused(world, make_command):
    newer, older = make_command(sequence=2), make_command(job="job-0", sequence=1)
    world.workshop.take(newer)
    world.workshop.take(older)
    assert world.answer(older.key).failure.code == "refused_late"


def test_abort_token_stops_work(world, make_command, machine):
    world.gates["a"] = threading.Event()
    command = make_command(body={"name": "a"})
    world.workshop.take(command)
    machine.link.aborted.add(command.key)
    world.gates["a"].set()
    assert world.answer(command.key).failure.code == "aborted"


def test_stopping_breaks_bulk_work_off_without_an_answer(world, make_command, journal):
    world.gates["long"] = threading.Event()
    command = make_command("test.bulk", body={"name": "long"})
    world.workshop.take(command)
    wait_until(lambda: world.began == ["long"])
    stopping = threading.Thread(target=world.workshop.stop, args=(5,))
    stopping.start()
    wait_until(lambda: world.workshop._is_stopping)
    world.gates["long"].set()
    stopping.join()
    assert world.answers == []
    assert journal.accept(command)[1] is None, "control's next sending must be worked on"


def test_stopping_lets_quick_work_end(world, make_command):
    world.gates["short"] = threading.Event()
    command = make_command(body={"name": "short"})
    world.workshop.take(command)
    wait_until(lambda: world.began == ["short"])
    stopping = threading.Thread(target=world.workshop.stop, args=(5,))
    stopping.start()
    world.gates["short"].set()
    stopping.join()
    assert world.answer(command.key).failure is None


def test_what_waits_for_a_thread_and_is_cancelled_is_answered_at_once(world, make_command, machine, monkeypatch):
    """Long work may wait for hours behind other long work; who cancels it does not."""
    names = [f"long-{number}" for number in range(work.BULK_THREADS)]
    for name in names:
        world.gates[name] = threading.Event()
        world.workshop.take(make_command("test.bulk", job=name, resource=name, body={"name": name}))
    wait_until(lambda: sorted(world.began) == names)
    waiting = make_command("test.bulk", job="later", resource="later", body={"name": "later"})
    world.workshop.take(waiting)
    world.workshop.drop_aborted()
    assert waiting.key in world.workshop.in_work()
    machine.link.aborted.add(waiting.key)
    world.workshop.drop_aborted()
    assert world.answer(waiting.key).failure.nature == "aborted"
    assert waiting.key not in world.workshop.in_work()
    for name in names:
        world.gates[name].set()
    wait_until(lambda: sorted(world.ended) == names)
    assert "later" not in world.began

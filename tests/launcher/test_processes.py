"""Running, finding and ending processes."""

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import pytest

from launcher import locks, sweep
from launcher.errors import Refusal
from launcher.instance import Instance
from launcher.process import run, started_at, wait_for_end, wait_until


def test_failing_command_is_told_with_its_last_words() -> None:
    with pytest.raises(Refusal, match=r"Baking failed \(exit code 3\):\nno flour") as refused:
        run(["sh", "-c", "echo no flour >&2; exit 3"], what="Baking", advice="Buy some.")
    assert refused.value.advice == "Buy some."


def test_missing_program_is_told() -> None:
    with pytest.raises(Refusal, match="no-such-program is missing"):
        run(["no-such-program"], what="Baking")


def test_deadline_is_kept() -> None:
    with pytest.raises(Refusal, match=r"The cake: not within 0.1 s"):
        wait_until(lambda: False, 0.1, "The cake")


def test_end_of_any_process_is_seen() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert not wait_for_end(process.pid, 0.01)
    process.kill()
    assert wait_for_end(process.pid, 5)
    assert started_at(process.pid) is None  # a zombie is dead
    process.wait()
    assert wait_for_end(process.pid, 0)


def test_a_pid_used_again_is_not_the_same_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        first = started_at(process.pid)
        assert first is not None
        assert first == started_at(process.pid)
        assert first != started_at(1)
        process.kill()


def test_sweep_finds_marked_processes_and_their_children_only(tmp_path: Path) -> None:
    instance = Instance("sweep-test", tmp_path)
    marked = {**os.environ, sweep.CONTROL_MARK: instance.name}
    other = {**os.environ, sweep.CONTROL_MARK: "another"}
    ours = subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], env=marked, stdout=subprocess.PIPE)
    theirs = subprocess.Popen(["sleep", "60"], env=other)
    try:
        assert ours.stdout is not None
        ours.stdout.readline()
        found = sweep.processes(instance)
        assert ours.pid in found
        assert len(found) == 2
        assert theirs.pid not in found
        assert sweep.processes(instance, [sweep.MACHINE_MARK]) == []
        told = sweep.end(found)
        assert any("sleep 60" in line for line in told)
        assert theirs.poll() is None
    finally:
        theirs.kill()
        theirs.wait()
        ours.communicate()


def _hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with locks.held(path, lambda _: None):
        ready.set()
        signal.pause()


def test_lock_tells_its_holder_and_outlives_nobody(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, ready = tmp_path / "lock", context.Event()
    holder = context.Process(target=_hold, args=(path, ready))
    holder.start()
    assert ready.wait(30)

    def waiting(who: str) -> None:
        assert who == f"pid {holder.pid}"
        holder.kill()  # the kernel frees a dead holder's lock

    with locks.held(path, waiting):
        assert path.read_text() == f"pid {os.getpid()}"
    holder.join()
    assert holder.exitcode == -signal.SIGKILL

"""The command line: what is ours, what is passed on, how failures are told."""

import argparse
from io import StringIO

import pytest

from launcher import cli
from launcher.errors import Refusal
from launcher.steps import Steps


@pytest.mark.parametrize(
    ("words", "ours", "theirs"),
    [
        (["manage", "migrate", "--help"], ["manage"], ["migrate", "--help"]),
        (["ssh", "hello", "ls", "-l", "--", "/"], ["ssh", "hello"], ["ls", "-l", "--", "/"]),
        (["test", "-k", "x", "--full", "tests/launcher"], ["test", "--full"], ["-k", "x", "tests/launcher"]),
        (["test", "--help"], ["test", "--help"], []),
        (["down", "--purge"], ["down", "--purge"], []),
    ],
)
def test_words_are_split_in_their_order(words: list[str], ours: list[str], theirs: list[str]) -> None:
    assert cli.split(words) == (ours, theirs)


def test_unknown_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse(["up", "--purge"])
    assert ended.value.code == 2
    assert "--purge" in capsys.readouterr().err


def test_a_refusal_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: argparse.Namespace) -> int:
        raise Refusal("The disk is full", "Empty it.")

    monkeypatch.setattr(cli, "status", refuse)
    assert cli.main(["status"]) == 1
    told = capsys.readouterr().err
    assert "mica: The disk is full" in told
    assert "Empty it." in told
    assert "Traceback" not in told


def test_a_step_tells_its_time_and_its_failure() -> None:
    out = StringIO()
    steps = Steps(out)
    with steps.step("Cooking") as note:
        note.say("3 eggs")
    with pytest.raises(ValueError, match="burnt"), steps.step("Baking"):
        raise ValueError("burnt")
    cooked, baked = out.getvalue().splitlines()
    assert cooked.split() == ["Cooking", "0.0", "s", "3", "eggs"]
    assert baked.split() == ["Baking", "0.0", "s", "failed"]


def test_the_doctor_needs_a_cloud_that_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away() -> None:
        raise Refusal("Mica is not running", "Run ./mica up first.")

    monkeypatch.setattr(cli, "_running_cloud", away)
    assert cli.main(["doctor", "--json", "--fix"]) == 1
    assert "Mica is not running" in capsys.readouterr().err

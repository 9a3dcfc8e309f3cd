"""The frame of `./mica bench`: figures, their lines, which are chosen, and what comes of a short one."""

import io
import json
import re
from typing import Any

import pytest

from launcher.bench import frame
from launcher.bench.figures import Figure, header, line, median
from launcher.bench.frame import BENCHES, Bench, chosen, measure
from launcher.bench.run import Run
from launcher.cli import parse
from launcher.cloud import Cloud
from launcher.errors import Refusal
from launcher.steps import Steps


@pytest.fixture
def run() -> Run:
    return Run(Cloud(steps=Steps(io.StringIO())), True, lambda _text: None)


@pytest.mark.parametrize(
    ("measured", "bar", "is_more_better", "is_ok"),
    [(1.0, 1.0, False, True), (1.1, 1.0, False, False), (10.0, 10.0, True, True), (9.9, 10.0, True, False)],
)
def test_a_figure_is_held_against_its_bar(measured: float, bar: float, is_more_better: bool, is_ok: bool) -> None:
    assert Figure("x", measured, "s", bar, is_more_better=is_more_better).is_ok is is_ok


def test_the_line_of_a_figure() -> None:
    said = line(Figure("create", 1.86, "s", 2.3, reference=1.5, note="median of 9 rounds"))
    assert re.sub(r" {2,}", "|", said) == "create|1.86 s|1.5 s|1.24|≤ 2.3 s|ok|median of 9 rounds"
    short = line(Figure("creates", 8.0, "/s", 10.0, is_more_better=True))
    assert re.sub(r" {2,}", "|", short) == "creates|8 /s|-|-|≥ 10 /s|SHORT"
    assert [said.index("ok"), said.index("≤")] == [header().index("ok"), header().index("bar")]


def test_the_document_of_a_figure() -> None:
    said = Figure("create", 3.0, "s", 2.0, reference=1.5).document()
    assert (said["ratio"], said["is_ok"], said["name"]) == (2.0, False, "create")
    assert Figure("idle", 3.0, "%", 2.0).document()["ratio"] is None


@pytest.mark.parametrize(("values", "middle"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5), ([1.0], 1.0)])
def test_the_median(values: list[float], middle: float) -> None:
    assert median(values) == middle


def test_figures_are_chosen_by_name() -> None:
    assert chosen([]) == list(BENCHES)
    assert [bench.name for bench in chosen(["resume", "list"])] == ["list", "resume"]
    with pytest.raises(Refusal) as refused:
        chosen(["list", "speed"])
    assert "speed" in refused.value.what
    assert "resume" in refused.value.advice


def test_a_short_figure_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    good, short = Figure("good", 1.0, "s", 2.0), Figure("slow", 3.0, "s", 2.0)
    benches = [Bench("one", lambda _run: [good], "1 s"), Bench("two", lambda _run: [short], "1 s")]
    assert measure(benches[:1], run)
    assert not measure(benches, run)
    lines = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in lines] == ["name", "good", "name", "good", "slow"]


def test_figures_as_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure([Bench("one", lambda _run: [Figure("good", 1.0, "s", 2.0)], "1 s")], run, is_json=True)
    assert [figure["name"] for figure in json.loads(capsys.readouterr().out)] == ["good"]


def test_the_words_of_the_command() -> None:
    options, rest = parse(["bench", "create", "list", "--quick", "--json"])
    assert (options.names, options.is_quick, options.is_json, rest) == (["create", "list"], True, True, [])
    assert parse(["bench"])[0].names == []


def test_a_cloud_that_was_down_is_down_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher import cli

    done: list[str] = []
    monkeypatch.setattr(cli.preflight, "become_root", lambda: None)
    monkeypatch.setattr(cli.setup, "tools", lambda *_: done.append("tools"))
    monkeypatch.setattr(Cloud, "is_up", lambda _self: False)
    monkeypatch.setattr(Cloud, "check_room", lambda _self: None)
    monkeypatch.setattr(Cloud, "up", lambda _self: done.append("up"))
    monkeypatch.setattr(Cloud, "down", lambda _self, **_: done.append("down"))

    def broken(*_: Any, **__: Any) -> bool:
        done.append("measured")
        raise Refusal("no")

    monkeypatch.setattr(frame, "measure", broken)
    with pytest.raises(Refusal):
        cli.bench(parse(["bench", "list"])[0])
    assert done == ["tools", "up", "measured", "down"]

"""Who is called silent: the rules of design §3, with a clock of our own."""

from uuid import uuid4

from cloud.infra.services.silence import GRACE_S, Look, silent

A, B, C = uuid4(), uuid4(), uuid4()


def look(*, now: float = 1000, uptime: float = 3600, newest_at: float | None = None, **ages: float | None) -> Look:
    by_name = {"a": A, "b": B, "c": C}
    known = [age for age in ages.values() if age is not None]
    newest = newest_at if newest_at is not None else now - min(known, default=0)
    return Look(now, uptime, {by_name[name]: age for name, age in ages.items()}, newest)


def test_a_beating_agent_is_not_silent() -> None:
    assert silent(look(a=0, b=3)) == set()


def test_a_late_beat_is_no_silence() -> None:
    assert silent(look(a=0, b=11.9)) == set()


def test_one_that_stops_is_silent_within_15_seconds() -> None:
    assert silent(look(a=1, b=12)) == {B}
    assert silent(look(a=1, b=None)) == {B}


def test_nobody_is_silent_in_the_first_minute_of_redis() -> None:
    assert silent(look(uptime=GRACE_S - 1, a=1, b=None)) == set()
    assert silent(look(uptime=GRACE_S, a=1, b=None)) == {B}


def test_all_at_once_are_given_a_minute() -> None:
    assert silent(look(a=14, b=13, c=None, newest_at=1000 - 13)) == set()
    assert silent(look(a=None, b=None, c=None, newest_at=1000 - 59)) == set()
    assert silent(look(a=None, b=None, c=None, newest_at=1000 - 60)) == {A, B, C}


def test_all_at_once_is_seen_before_the_last_one_is_late() -> None:
    """They beat at different moments: the first to be late must not be taken for the only one."""
    assert silent(look(a=12.5, b=9.6, c=10)) == set()


def test_a_single_agent_is_no_crowd() -> None:
    assert silent(look(a=None, newest_at=1000 - 15)) == {A}


def test_two_of_three_are_not_all() -> None:
    assert silent(look(a=None, b=None, c=2)) == {A, B}


def test_nobody_there() -> None:
    assert silent(look()) == set()

"""The control processes' configuration."""

import configparser
import json
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from launcher import instance as instances
from launcher.control import environment, metrics, postgres, programs, redis, supervisor
from launcher.errors import Refusal
from launcher.instance import Instance


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    for name in ("DATA_ROOT", "RUN_ROOT", "LOG_ROOT"):
        monkeypatch.setattr(instances, name, tmp_path / name)
    made = Instance("one", tmp_path / "a checkout 100%", 8123)
    made.data.mkdir(parents=True)
    return made


def configuration(instance: Instance, *wanted: programs.Program) -> configparser.RawConfigParser:
    return supervisor.configuration(instance, wanted)


def test_paths_with_blanks_and_percents_reach_the_program_whole(instance: Instance) -> None:
    program = programs.Program("x", [instance.python, "-c", "print('%s' % 1)"], directory=instance.checkout)
    section = configuration(instance, program)["program:x"]
    # supervisor expands %(name)s, then splits like a shell.
    assert shlex.split(section["command"] % {}) == [str(instance.python), "-c", "print('%s' % 1)"]
    assert section["directory"] % {} == str(instance.checkout)


def test_nothing_starts_by_itself_and_everything_comes_back(instance: Instance) -> None:
    config = configuration(instance, *programs.of(instance))
    sections = [config[name] for name in config.sections() if "program:" in name]
    assert len(sections) == len(programs.ALL) + len([programs.SIMULATOR])
    assert {section["autostart"] for section in sections} == {"false"}
    assert {section["autorestart"] for section in sections} == {"true"}


def test_only_the_web_port_is_bound_outside_and_on_loopback(instance: Instance) -> None:
    config = configuration(instance, *programs.of(instance))
    assert config["fcgi-program:web"]["socket"] == "tcp://127.0.0.1:8123"
    assert [name for name in config.sections() if name.startswith("fcgi")] == ["fcgi-program:web"]
    for name in config.sections():
        if "program:" in name:
            assert config[name]["command"].startswith("ip netns exec mica-")


def test_groups_cover_every_program(instance: Instance) -> None:
    assert {program.name for program in programs.of(instance)} == {*programs.ALL, programs.SIMULATOR}
    assert {*programs.STORES, *programs.METRICS, *programs.CONTROL, "outside-www"} == set(programs.ALL)


def test_database_url_is_a_socket_folder(instance: Instance) -> None:
    parts = urlsplit(postgres.url(instance))
    assert unquote(parts.netloc) == f"mica@{postgres.socket_folder(instance)}"
    assert parts.path == "/mica"


def test_redis_password_is_made_once_and_private(instance: Instance) -> None:
    assert redis.url(instance) == redis.url(instance)
    assert (instance.data / "redis-password").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("value", ["plain", "with blank", 'a "quoted" word', "back\\slash"])
def test_redis_values_are_quoted(value: str) -> None:
    assert json.loads(redis._quoted(value)) == value  # for these, redis' rules are JSON's


def test_environment_file_is_private_and_complete(instance: Instance) -> None:
    environment.prepare(instance)
    file = environment.file(instance)
    assert file.stat().st_mode & 0o777 == 0o600
    read = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert read == environment.settings(instance)
    assert read["MICA_BASE_URL"] == "http://localhost:8123"


def test_secrets_stay_when_prepared_again(instance: Instance) -> None:
    environment.prepare(instance)
    before = (instance.data / "secret-key").read_text()
    environment.prepare(instance)
    assert (instance.data / "secret-key").read_text() == before


def test_first_metrics_users_file_lets_nobody_in_and_is_kept(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_store_user", lambda: None)
    metrics.prepare(instance)
    file = metrics.users_file(instance)
    assert len(json.loads(file.read_text())["users"]) == 1
    file.write_text("written by control")
    metrics.prepare(instance)
    assert file.read_text() == "written by control"


def test_data_of_another_postgresql_are_not_touched(instance: Instance) -> None:
    folder = postgres.data_folder(instance)
    folder.mkdir()
    (folder / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(Refusal, match=r"PostgreSQL 9\.6") as refused:
        postgres.command(instance)
    assert "postgresql-9.6" in refused.value.advice


def test_dead_supervisor_has_no_processes(instance: Instance) -> None:
    dead = supervisor.of_control(instance)
    assert not dead.is_alive()
    assert dead.processes() == []
    assert dead.missing(["web"]) == ["web"]
    assert dead.pid("web") is None
    dead.shut_down()

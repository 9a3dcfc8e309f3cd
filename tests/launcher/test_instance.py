"""Names and places of an instance."""

import hashlib
from pathlib import Path

import pytest

from launcher.control import postgres, redis
from launcher.errors import Refusal
from launcher.instance import NAME_LENGTH, Instance, default_name
from launcher.lab.plan import PLACES
from launcher.testing import instance_for_tests


def test_name_tells_the_checkout_and_differs_by_path(tmp_path: Path) -> None:
    one, other = tmp_path / "a/mica", tmp_path / "b/mica"
    digest = hashlib.sha256(str(one).encode()).hexdigest()[:6]
    assert default_name(one) == f"mica-{digest}"
    assert default_name(one) != default_name(other)


@pytest.mark.parametrize("folder", ["My Cloud (new)", "ÄÖ", "x" * 200, "-"])
def test_any_folder_gives_a_name_that_is_accepted(tmp_path: Path, folder: str) -> None:
    name = default_name(tmp_path / folder)
    assert Instance.of_checkout(tmp_path, {"MICA_INSTANCE": name}).name == name


@pytest.mark.parametrize("name", ["Mica", "../etc", "a b", "x" * (NAME_LENGTH + 1), "cache", "-a"])
def test_bad_instance_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match="MICA_INSTANCE"):
        Instance.of_checkout(tmp_path, {"MICA_INSTANCE": name})


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "80.5"])
def test_bad_ports_are_refused(tmp_path: Path, port: str) -> None:
    with pytest.raises(Refusal, match="MICA_PORT"):
        Instance.of_checkout(tmp_path, {"MICA_PORT": port})


def test_longest_name_still_fits_a_unix_socket(tmp_path: Path) -> None:
    instance = Instance("x" * NAME_LENGTH, tmp_path)
    for path in (redis.socket_path(instance), postgres.socket_folder(instance) / ".s.PGSQL.5432"):
        assert len(str(path)) < 108  # sun_path, unix(7)


def test_namespaces_of_two_instances_do_not_meet(tmp_path: Path) -> None:
    one, other = Instance("one", tmp_path), Instance("other", tmp_path)
    names = {instance.namespace(place.name) for instance in (one, other) for place in PLACES}
    assert len(names) == 2 * len(PLACES)


def test_tests_have_an_instance_of_their_own(tmp_path: Path) -> None:
    longest = Instance("x" * NAME_LENGTH, tmp_path, 8000)
    theirs = instance_for_tests(longest)
    assert theirs.name != longest.name
    assert theirs.port != longest.port
    assert Instance.of_checkout(tmp_path, {"MICA_INSTANCE": theirs.name}).name == theirs.name

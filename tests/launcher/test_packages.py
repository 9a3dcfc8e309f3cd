"""Packages: the list, the denial of services, stamps."""

from pathlib import Path

import pytest

from launcher.packages import apt, stamps


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(apt, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(apt, "POLICY_ASIDE", tmp_path / "policy-rc.d.before-mica")
    monkeypatch.setattr(apt, "CLUSTER_RULE", tmp_path / "createcluster.d/mica.conf")
    return tmp_path


def test_list_is_read_with_its_words() -> None:
    text = "# heading\n\npostgresql\nchromium   test # for the browser tests\n"
    assert apt.read_list(text) == [apt.Package("postgresql"), apt.Package("chromium", "test")]


def test_our_own_list_says_only_known_words() -> None:
    packages = apt.read_list(apt.LIST.read_text())
    assert {package.when for package in packages} <= {"always", "test", "npm"}
    assert len({package.name for package in packages}) == len(packages)


def test_services_are_denied_only_inside(places: Path) -> None:
    with apt.services_denied():
        assert "exit 101" in apt.POLICY.read_text()
        assert apt.POLICY.stat().st_mode & 0o111
        assert apt.CLUSTER_RULE.read_text() == "create_main_cluster = false\n"
    assert list(places.iterdir()) == []


def test_a_failing_installation_leaves_the_users_policy_as_it_was(places: Path) -> None:
    apt.POLICY.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(RuntimeError, match="apt broke"), apt.services_denied():
        raise RuntimeError("apt broke")
    assert apt.POLICY.read_text() == "#!/bin/sh\nexit 0\n"
    assert [entry.name for entry in places.iterdir()] == ["policy-rc.d"]


def test_what_a_killed_set_up_left_is_put_right(places: Path) -> None:
    apt.POLICY_ASIDE.write_text("the user's own")
    apt.POLICY.write_text(apt.POLICY_TEXT)
    apt._remove_leftovers()
    assert apt.POLICY.read_text() == "the user's own"
    assert not apt.POLICY_ASIDE.exists()


def test_missing_packages_are_found_by_dpkg() -> None:
    assert apt.not_installed(["dpkg", "no-such-package-of-mica"]) == ["no-such-package-of-mica"]


def test_digest_follows_contents_and_names(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    before = stamps.digest(tmp_path, "text")
    assert stamps.digest(tmp_path, "text") == before
    assert stamps.digest(tmp_path, "other text") != before
    (tmp_path / "one").rename(tmp_path / "two")
    assert stamps.digest(tmp_path, "text") != before


def test_compiled_python_does_not_count(tmp_path: Path) -> None:
    before = stamps.digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/x.pyc").write_bytes(b"x")
    assert stamps.digest(tmp_path) == before

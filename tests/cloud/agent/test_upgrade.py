"""An agent that replaces itself, as a real file run by the distribution's Python and killed where it hurts."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from cloud.agent import bundle, stream_client, upgrade, version
from cloud.agent.upgrade import Offer, Upgrade, WentBack
from cloud.common import tickets
from cloud.common.driver import Rejected, Transient
from cloud.infra.messages import UPGRADE_VERB
from tests.cloud.agent.conftest import enrol
from tests.cloud.agent.test_agent import Control
from tests.cloud.agent.waiting import wait_until

OLD, NEW = "0.1.0+old", "0.1.0+new"


def small(path: Path, said: str, *, status: int = 0) -> Path:
    """A release that knows its self-test only."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", f"import sys\nprint({said!r})\nsys.exit({status})\n")
    return path


def offer_of(path: Path, said: str = NEW) -> Offer:
    data = path.read_bytes()
    return Offer(said, hashlib.sha256(data).hexdigest(), len(data))


class Place:
    """Where a release lies, and what its successor finds there."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.bundle = small(folder / "agent.pyz", OLD)
        self.restarts: list[str] = []
        self.run(OLD)

    def run(self, current: str, **options) -> Upgrade:
        """The process of this release."""
        self._monkeypatch.setattr(version, "current", lambda: current)
        self.upgrade = Upgrade(
            self.folder / "state",
            self.folder / "etc",
            bundle=self.bundle,
            restart=lambda: self.restarts.append(current),
            **options,
        )
        return self.upgrade

    def install(self, said: str = NEW) -> None:
        small(self.upgrade.arriving, said)
        self.upgrade.install(offer_of(self.upgrade.arriving, said))

    def holds(self) -> str:
        """The version of the release in place."""
        done = subprocess.run(["/usr/bin/python3", "-I", self.bundle], capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


def test_a_confirmed_release_stays_and_the_previous_is_kept(place):
    place.install()
    assert place.holds() == NEW
    new = place.run(NEW)
    new.begin()
    new.confirm(NEW)
    again = place.run(NEW)
    for _ in range(upgrade.STARTS + 2):
        again.begin()
    assert place.holds() == NEW
    assert again.failure() is None
    assert again.previous.read_bytes() != again.bundle.read_bytes()
    assert stat.S_IMODE(again.bundle.stat().st_mode) == 0o755
    assert not again.arriving.exists()


def test_what_is_not_what_was_offered_is_refused(place):
    small(place.upgrade.arriving, NEW)
    wrong = Offer(NEW, "0" * 64, place.upgrade.arriving.stat().st_size)
    with pytest.raises(Rejected) as refused:
        place.upgrade.install(wrong)
    assert refused.value.code == "release_damaged"
    assert place.holds() == OLD
    assert place.upgrade.failure() is None


@pytest.mark.parametrize(("said", "status"), [("0.1.0+other", 0), (NEW, 1)])
def test_what_does_not_start_is_refused(place, said, status):
    small(place.upgrade.arriving, said, status=status)
    with pytest.raises(Rejected) as refused:
        place.upgrade.install(offer_of(place.upgrade.arriving))
    assert refused.value.code == "release_does_not_start"
    assert place.holds() == OLD


def test_no_second_release_while_one_is_on_trial(place):
    place.install()
    new = place.run(NEW)
    with pytest.raises(Transient):
        new.expect_acceptable(Offer("0.1.0+third", "0" * 64, 10))


def test_an_agent_of_a_checkout_is_not_replaced(place):
    place.bundle.write_text("no release")
    with pytest.raises(Rejected) as refused:
        place.upgrade.expect_acceptable(Offer(NEW, "0" * 64, 10))
    assert refused.value.code == "not_a_bundle"


def test_without_confirmation_it_goes_back_by_itself(place):
    place.install()
    place.run(NEW, confirm_s=0.05).begin()
    wait_until(lambda: place.restarts == [NEW])
    assert place.holds() == OLD
    old = place.run(OLD)
    old.begin()
    assert old.failure()["version"] == NEW
    with pytest.raises(Rejected) as refused:
        old.confirm(NEW)
    assert refused.value.code == "release_went_back"
    assert "did not confirm" in refused.value.detail


def test_a_release_that_keeps_ending_goes_back(place):
    place.install()
    for _ in range(upgrade.STARTS):
        place.run(NEW).begin()
    assert place.holds() == NEW
    with pytest.raises(WentBack):
        place.run(NEW).begin()
    assert place.holds() == OLD
    old = place.run(OLD)
    old.begin()
    assert "ended 3 times" in old.failure()["reason"]
    place.install()  # and may be tried again
    assert place.holds() == NEW


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", ["os.replace", "os.link", "os.fsync"])
@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("is_before", [True, False])
def test_killed_at_any_moment_one_whole_release_is_in_place(place, monkeypatch, call, number, is_before):
    """Installing and going back, cut at each change of the disk: what starts next is old or new, and knows which."""
    original, count = getattr(os, call.partition(".")[2]), 0

    def cut(*arguments, **options):
        nonlocal count
        count += 1
        if count == number + 1 and is_before:
            raise Killed
        answer = original(*arguments, **options)
        if count == number + 1:
            raise Killed
        return answer

    monkeypatch.setattr(os, call.partition(".")[2], cut)
    try:
        place.install()
        place.run(NEW).go_back("because")
    except Killed:
        pass
    monkeypatch.setattr(os, call.partition(".")[2], original)
    held = place.holds()
    assert held in (OLD, NEW)
    after = place.run(held)
    after.begin()
    if held == OLD:
        place.install()
        held = place.holds()
        after = place.run(NEW)
        after.begin()
    after.confirm(NEW)
    assert (held, after.failure()) == (NEW, None)


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Two real releases: this checkout's, and one that differs in a data file only. {version: path}."""
    folder = tmp_path_factory.mktemp("releases")
    made = {}
    for name in ("one", "two"):
        out = folder / f"{name}.pyz"
        with pytest.MonkeyPatch.context() as patch:
            files = bundle.own_files()
            files["cloud/agent/release.txt"] = name.encode()
            patch.setattr(bundle, "own_files", lambda files=files: dict(files))
            made[bundle.build(out)] = out
    return made


class Running:
    """An agent run from its one file, as on a machine."""

    def __init__(self, config, folder, release):
        self.config, self.folder = config, folder
        self.bundle = folder / "agent.pyz"
        shutil.copyfile(release, self.bundle)
        self.log = folder / "log"
        self.process = None

    def start(self):
        words = ["/usr/bin/python3", "-I", self.bundle, "--config", self.config.directory, "run"]
        words += ["--state", self.folder / "state", "--runtime", self.folder / "run"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def door(self):
        def port():
            ports = [line for line in self.log.read_text().splitlines() if "stream door on" in line]
            return int(ports[-1].rpartition(" ")[2]) if ports else None

        return wait_until(port, 30)

    def starts(self):
        return self.log.read_text().count("agent.agent: agent ")


@pytest.fixture
def running(linked, tmp_path, releases):
    made = Running(linked, tmp_path, next(iter(releases.values())))
    made.start()
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    print(made.log.read_text())


def send(running, pki_dir, peer, path, said):
    offer = offer_of(path, said)
    key = tickets.load_signing_key(pki_dir / "ticket.key")
    params = {"version": offer.version, "sha256": offer.sha256, "size_bytes": offer.size_bytes}
    agent = running.config.uuid
    ticket = tickets.sign(key, agent=agent, verb=UPGRADE_VERB, resource=agent, params=params)
    with stream_client.connect(peer, "127.0.0.1", running.door(), ticket) as stream:
        lines = stream.makefile("rb")
        said = json.loads(lines.readline())
        if said != {"state": "wanted"}:
            return said
        stream.sendall(path.read_bytes())
        return json.loads(lines.readline())


def test_a_real_agent_becomes_the_new_release_in_its_own_process(
    running, releases, redis_server, pki_dir, tmp_path, make_command
):
    (old, _), (new, path) = releases.items()
    control = Control(redis_server, running.config.uuid)
    peer = enrol(pki_dir, tmp_path / "peer", "11111111-1111-4111-8111-111111111111")
    assert control.wait_for("infra.agent_hello", 30)["version"] == old
    assert control.alive()["version"] == old
    process = running.process.pid
    assert send(running, pki_dir, peer, path, new) == {"state": "installed"}
    hello = control.wait_for("infra.agent_hello", 40, version=new)
    assert hello["protocol"] == version.PROTOCOL
    assert control.alive() is not None  # it was never missed
    assert Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[2] == str(running.bundle).encode()
    confirm = make_command("infra.confirm_release", body={"version": new})
    control.send("command", confirm)
    assert control.wait_for("jobs.answer", key=confirm.key)["failure"] is None
    assert json.loads((running.folder / "state/upgrade.json").read_text()) == {}
    assert send(running, pki_dir, peer, path, new) == {"state": "present"}
    wrong = make_command("infra.confirm_release", job="j2", sequence=2, body={"version": old})
    control.send("command", wrong)
    assert control.wait_for("jobs.answer", key=wrong.key)["failure"]["code"] == "release_went_back"


def test_a_real_agent_killed_in_the_middle_goes_on_as_the_new_one(running, releases, redis_server, pki_dir, tmp_path):
    (old, _), (new, path) = releases.items()
    control = Control(redis_server, running.config.uuid)
    peer = enrol(pki_dir, tmp_path / "peer", "11111111-1111-4111-8111-111111111111")
    control.wait_for("infra.agent_hello", 30, version=old)
    assert send(running, pki_dir, peer, path, new) == {"state": "installed"}
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    running.start()
    control.wait_for("infra.agent_hello", 40, version=new)
    assert json.loads((running.folder / "state/upgrade.json").read_text())["pending"]["starts"] >= 1


def test_a_damaged_real_release_changes_nothing(running, releases, redis_server, pki_dir, tmp_path):
    _, (new, path) = releases.items()
    peer = enrol(pki_dir, tmp_path / "peer", "11111111-1111-4111-8111-111111111111")
    damaged = tmp_path / "damaged.pyz"
    damaged.write_bytes(path.read_bytes()[: 1 << 20])
    before = running.bundle.read_bytes()
    assert send(running, pki_dir, peer, damaged, new)["code"] == "release_does_not_start"
    assert running.bundle.read_bytes() == before
    assert running.process.poll() is None

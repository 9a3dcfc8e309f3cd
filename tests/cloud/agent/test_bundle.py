"""The agent as one file, run as on a machine: isolated, from an empty folder, by the distribution's Python."""

import json
import os
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import pytest

from cloud.agent import bundle
from cloud.agent.main import HANDLERS
from cloud.common import pki
from tests.cloud.agent.test_agent import Control, Process

PYTHON = "/usr/bin/python3"
STANDARD = "/usr/lib/python3."
DISTRIBUTION = ("/usr/lib/python3", "/usr/local/lib/python3")
FROM_THE_DISTRIBUTION = {"libvirt", "libvirtmod", "psutil", "cryptography", "nftables", "rados", "rbd"}
# Libraries that the bundled ones use when they find them, and do without.
WELCOME = {"yaml", "_yaml", "_cffi_backend", "_distutils_hack", "msgpack", "simplejson", "hiredis", "dateutil", "six"}

LOAD_EVERYTHING = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
import cloud.agent.agent
from cloud.agent.main import HANDLERS, load_handlers
left_out = load_handlers()
import pyroute2
from cloud.agent import registry
print(json.dumps({
    "left_out": left_out,
    "files": {n: getattr(m, "__file__", None) for n, m in list(sys.modules.items())},
    "commands": sorted(registry.COMMANDS),
    "sections": sorted(registry.SECTIONS),
}))
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "agent.pyz"
    return out, bundle.build(out)


@pytest.fixture
def isolated(tmp_path):
    """Runs the distribution's Python with -I in an empty folder and an empty environment."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments, **options):
        command = [PYTHON, "-I", *map(str, arguments)]
        environment = {"PATH": os.environ["PATH"]}
        return subprocess.run(
            command, cwd=empty, env=environment, capture_output=True, text=True, check=False, **options
        )

    return run


def test_version_is_the_contents(built, isolated):
    out, version = built
    answer = isolated(out, "version")
    assert (answer.stdout.strip(), answer.stderr) == (version, "")


def test_same_input_makes_the_same_file(built, tmp_path):
    again = tmp_path / "again.pyz"
    bundle.build(again)
    assert again.read_bytes() == built[0].read_bytes()


def test_it_finds_only_the_standard_library_itself_and_the_distributions_packages(built, isolated):
    out, _ = built
    answer = isolated("-c", LOAD_EVERYTHING, out)
    assert answer.returncode == 0, answer.stderr
    loaded = json.loads(answer.stdout)
    assert loaded["left_out"] == {}
    standard = sys.stdlib_module_names | {"__main__", "__mp_main__", "sitecustomize"}
    strangers = set()
    for name, file in loaded["files"].items():
        top = name.partition(".")[0]
        if file is None or top in standard or file.startswith((str(out), STANDARD)):
            continue
        if not (file.startswith(DISTRIBUTION) and top in FROM_THE_DISTRIBUTION | WELCOME):
            strangers.add(f"{name} from {file}")
    assert strangers == set()
    assert not any(name.partition(".")[0] in bundle.FORBIDDEN for name in loaded["files"])


def test_every_handler_is_in_it(built, isolated):
    loaded = json.loads(isolated("-c", LOAD_EVERYTHING, built[0]).stdout)
    assert set(HANDLERS) <= set(loaded["files"])
    assert {name.partition(".")[0] for name in loaded["commands"]} == {"compute", "infra", "storage"}
    assert {"networks", "dhcp", "storages"} <= set(loaded["sections"])


def test_nothing_compiled_and_no_control_code_is_in_it(built):
    names = zipfile.ZipFile(built[0]).namelist()
    assert not [name for name in names if name.endswith((".so", ".pyd"))]
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"django", "rest_framework", "tests", "launcher", "psutil", "cryptography"}
    assert not [name for name in names if "/models" in name and name.startswith(("compute", "network", "storage"))]
    assert not [name for name in names if name.startswith(("cloud/jobs", "cloud/settings"))]
    kept = {"cloud/infra/__init__.py", "cloud/infra/messages.py"}
    infra = {name for name in names if name.startswith("cloud/infra/") and name.endswith(".py")}
    assert {name for name in infra if not name.startswith("cloud/infra/agent/")} == kept


def test_byte_code_is_beside_every_own_source(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    own = {name for name in names if name.startswith(("cloud/", "compute/", "network/", "storage/"))}
    assert {name + "c" for name in own if name.endswith(".py")} <= own


def test_module_that_imports_django_is_refused(monkeypatch, tmp_path):
    (tmp_path / "cloud" / "agent").mkdir(parents=True)
    for folder in ("cloud", "cloud/agent"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "cloud" / "agent" / "main.py").write_text("def late():\n    from django.db import models\n")
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    with pytest.raises(bundle.BundleError, match=r"cloud\.agent\.main imports django"):
        bundle.own_files()


def test_module_that_nobody_brings_is_refused(monkeypatch, tmp_path):
    (tmp_path / "cloud" / "agent").mkdir(parents=True)
    for folder in ("cloud", "cloud/agent"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "cloud" / "agent" / "main.py").write_text("import numpy\n")
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    with pytest.raises(bundle.BundleError, match="imports numpy"):
        bundle.own_files()


@pytest.mark.parametrize("kind", ["host", "image_server"])
def test_preflight_says_what_is_there_and_what_is_not(built, isolated, kind, tmp_path):
    answer = isolated(built[0], "preflight", "--kind", kind, "--folder", tmp_path)
    assert answer.stdout.count("\n") == 1
    said = json.loads(answer.stdout)
    assert said["found"]["memory_bytes"] > 0
    assert str(tmp_path) in said["found"]["disk_free_bytes"]
    assert all({"code", "detail", "advice", "packages"} == set(lack) for lack in said["missing"])
    assert not [lack for lack in said["missing"] if lack["code"] == "python_library_missing"]


def test_preflight_on_a_machine_without_programs(built, isolated, tmp_path):
    answer = subprocess.run(
        [PYTHON, "-I", str(built[0]), "preflight", "--kind", "host"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (lack,) = [lack for lack in json.loads(answer.stdout)["missing"] if lack["code"] == "program_missing"]
    assert {"qemu-utils", "dnsmasq-base"} <= set(lack["packages"])
    assert "apt-get install" in lack["advice"]


def test_certificate_request_is_signed_by_control(built, isolated, pki_dir, tmp_path):
    agent = str(uuid.uuid4())
    answer = isolated(built[0], "--config", tmp_path / "etc", "csr", "--uuid", agent)
    assert answer.returncode == 0, answer.stderr
    assert pki.sign_request(pki_dir, answer.stdout, agent=agent).serial
    assert (tmp_path / "etc" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_without_a_configuration_it_says_what_to_do(built, isolated, tmp_path):
    answer = isolated(built[0], "--config", tmp_path, "run")
    assert answer.returncode == 78
    assert "enrol" in answer.stderr
    assert "Traceback" not in answer.stderr


class BundleProcess(Process):
    """The bundle itself at work, isolated."""

    def __init__(self, config, state, out: Path) -> None:
        super().__init__(config, state)
        self.out = out

    def command(self):
        places = ["--state", str(self.state), "--runtime", str(self.state / "run")]
        return [PYTHON, "-I", str(self.out), "--config", str(self.config.directory), "run", *places]


def test_it_runs_and_says_hello(built, linked, tmp_path, redis_server, agent_uuid):
    process = BundleProcess(linked, tmp_path / "state", built[0])
    process.start()
    try:
        hello = Control(redis_server, agent_uuid).wait_for("infra.agent_hello", 20)
        assert hello["version"] == built[1]
        assert hello["facts"]["left_out"] == {}
        assert process.stop() == 0
    finally:
        if process.process.poll() is None:
            process.kill()
        print(process.log.read_text())

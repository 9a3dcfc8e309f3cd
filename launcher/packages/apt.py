"""Packages of the distribution, installed without starting any of their services."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import Refusal
from launcher.process import SYSTEM_PATH, run

LIST = Path(__file__).resolve().parent.parent / "apt.txt"
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Mica's set-up: no service starts while packages are installed.\nexit 101\n"
POLICY_ASIDE = POLICY.with_name("policy-rc.d.before-mica")
# Read by postgresql-common's maintainer scripts through its include_dir: no cluster besides our own.
CLUSTER_RULE = Path("/etc/postgresql-common/createcluster.d/mica.conf")
# What these packages would start at the next boot of the user's machine.
BOOT_UNITS = {
    "postgresql": ["postgresql.service"],
    "redis-server": ["redis-server.service"],
    "victoria-metrics": ["victoria-metrics.service"],
    "openssh-server": ["ssh.service", "ssh.socket"],
    "nftables": ["nftables.service"],
}


@dataclass(frozen=True)
class Package:
    """A line of the list: a name and when it is needed (`always`, `test`, `npm`)."""

    name: str
    when: str = "always"


def read_list(text: str) -> list[Package]:
    """Parse apt.txt: a name a line, a word after it for when; `#` starts a comment."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [Package(*words) for words in lines if words]


def install(*, for_test: bool) -> str:
    """Install what is missing of the list; says what was done. Raises Refusal when apt cannot."""
    _remove_leftovers()
    packages = read_list(LIST.read_text())
    wanted = [package.name for package in packages if package.when == "always" or (for_test and package.when == "test")]
    if has_npm():
        wanted.remove("nodejs")
    missing = not_installed(wanted)
    if not missing and has_npm():
        return f"{len(wanted)} there"
    environment = {"PATH": SYSTEM_PATH, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    environment |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    advice = "Look whether `apt-get update` works on this machine, then run the same command again: it goes on."
    with services_denied():
        run(["apt-get", "update", "-q"], what="apt-get update", env=environment, advice=advice)
        _apt_install(missing, environment, advice)
        if not has_npm():
            _apt_install([package.name for package in packages if package.when == "npm"], environment, advice)
    _keep_from_booting(missing)
    return f"{len(missing)} installed"


def has_npm() -> bool:
    return shutil.which("npm", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}") is not None


def not_installed(names: list[str]) -> list[str]:
    """Those of the names that dpkg does not have installed."""
    answer = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}|${Package}\n", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    there = {line[4:] for line in answer.stdout.splitlines() if line[1:2] == "i"}
    return [name for name in names if name not in there]


@contextmanager
def services_denied() -> Iterator[None]:
    """While inside, package scripts neither start services (invoke-rc.d(8)) nor make a PostgreSQL cluster."""
    made_folder = not CLUSTER_RULE.parent.exists()
    if POLICY.exists():
        POLICY.rename(POLICY_ASIDE)
    try:
        POLICY.write_text(POLICY_TEXT)
        POLICY.chmod(0o755)
        CLUSTER_RULE.parent.mkdir(parents=True, exist_ok=True)
        CLUSTER_RULE.write_text("create_main_cluster = false\n")
        yield
    finally:
        _remove_leftovers()
        if made_folder and not any(CLUSTER_RULE.parent.iterdir()):
            CLUSTER_RULE.parent.rmdir()


def _remove_leftovers() -> None:
    """Put back what services_denied changed; also what a killed set-up left behind."""
    if POLICY.exists() and POLICY.read_text() == POLICY_TEXT:
        POLICY.unlink()
    if POLICY_ASIDE.exists() and not POLICY.exists():
        POLICY_ASIDE.rename(POLICY)
    CLUSTER_RULE.unlink(missing_ok=True)


def _apt_install(names: list[str], environment: dict[str, str], advice: str) -> None:
    if not names:
        return
    run(
        [
            "apt-get",
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Dpkg::Options::=--force-confold",
            *names,
        ],
        what="Installing packages",
        env=environment,
        advice=advice,
    )
    still = not_installed(names)
    if still:
        raise Refusal(f"apt-get did not install {', '.join(still)}", advice)


def _keep_from_booting(names: list[str]) -> None:
    """Services that came with us stay off at the next boot; those the machine had before are left alone."""
    units = [unit for name in names for unit in BOOT_UNITS.get(name, [])]
    if units and shutil.which("systemctl"):
        for unit in units:
            # A unit that this release does not have makes systemctl fail: nothing to keep from booting then.
            subprocess.run(["systemctl", "disable", "--quiet", unit], capture_output=True, check=False)

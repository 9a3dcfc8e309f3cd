"""The certificate authority of the instance and the certificates of its servers."""

from __future__ import annotations

from pathlib import Path

from launcher.control import metrics, redis
from launcher.instance import Instance
from launcher.lab.plan import MANAGEMENT_ADDRESS
from launcher.process import run


def prepare(instance: Instance) -> None:
    """Make the authority once, and Redis' and vmauth's certificates when absent or near their end."""
    if not (instance.pki / "ca.pem").exists():
        _pki(instance, "init", instance.pki)
    for name, prefix in (("redis", redis.tls_prefix(instance)), ("vmauth", metrics.tls_prefix(instance))):
        prefix.parent.mkdir(parents=True, exist_ok=True)
        _pki(instance, "issue", instance.pki, name, "--ip", MANAGEMENT_ADDRESS, "--out", prefix)


def _pki(instance: Instance, *words: str | Path) -> None:
    run([instance.python, "-m", "cloud.common.pki", *words], what="cloud.common.pki", cwd=instance.checkout)

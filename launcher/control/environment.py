"""The environment of every control process: a file that people can read too."""

from __future__ import annotations

import secrets
from pathlib import Path

from launcher import sweep
from launcher.control import metrics, postgres, redis
from launcher.instance import Instance
from launcher.lab.plan import MANAGEMENT_NETWORK, VTEP_NETWORK
from launcher.process import SYSTEM_PATH


def file(instance: Instance) -> Path:
    return instance.data / "mica.env"


def prepare(instance: Instance) -> None:
    """Make the instance's folders, its secrets and mica.env; idempotent."""
    for folder in (instance.data, instance.run, instance.log):
        folder.mkdir(parents=True, exist_ok=True)
    secret = _secret_file(instance)
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(64) + "\n")
    path = file(instance)
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in settings(instance).items()))


def settings(instance: Instance) -> dict[str, str]:
    """What Mica is told about this instance."""
    return {
        "DJANGO_SETTINGS_MODULE": "cloud.settings",
        "MICA_INSTANCE": instance.name,
        "MICA_DATA": str(instance.data),
        "MICA_RUN": str(instance.run),
        "MICA_LOG": str(instance.log),
        "MICA_PORT": str(instance.port),
        "MICA_BASE_URL": f"http://localhost:{instance.port}",
        "MICA_DATABASE_URL": postgres.url(instance),
        "MICA_DATABASE_POOL": "16",
        "MICA_REDIS_URL": redis.url(instance),
        "MICA_AGENT_REDIS_URL": redis.agent_url(),
        "MICA_METRICS_URL": metrics.STORE_URL,
        "MICA_AGENT_METRICS_URL": metrics.agent_url(),
        "MICA_VMAUTH_FILE": str(metrics.users_file(instance)),
        "MICA_VMAUTH_RELOAD_URL": metrics.reload_url(),
        "MICA_SECRET_KEY_FILE": str(_secret_file(instance)),
        "MICA_PKI": str(instance.pki),
        "MICA_MANAGEMENT_NETWORKS": f"{MANAGEMENT_NETWORK},{VTEP_NETWORK}",
        "MICA_LAB": "1",
    }


def of_processes(instance: Instance) -> dict[str, str]:
    """Settings and nothing of the caller's own environment; the mark tells our processes from others at `down`."""
    return {
        "PATH": SYSTEM_PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        sweep.CONTROL_MARK: instance.name,
        **settings(instance),
    }


def _secret_file(instance: Instance) -> Path:
    return instance.data / "secret-key"

"""Celery on Redis: JSON only, no result backend, quick acknowledgement is not trusted with anything (design §3)."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

from kombu import Queue

from cloud.settings.environment import setting


def _broker(url: str) -> str:
    """Redis by socket is `unix://…?db=0` for redis-py and `redis+socket://…?virtual_host=0` for Kombu."""
    if not url.startswith("unix://"):
        return url
    parts = urlsplit(url)
    number = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={number}"


CELERY_BROKER_URL = _broker(setting("redis_url", "redis://127.0.0.1:6379/0"))
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {"priority_steps": [0], "queue_order_strategy": "round_robin"}
CELERY_TASK_DEFAULT_QUEUE = "control"
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_TASK_QUEUES = [Queue("control"), Queue("control.answers"), Queue("control.ssh")]
CELERY_TIMEZONE = "UTC"

# Every sweep takes a PostgreSQL advisory lock and its message expires before the next: a second beat does no harm.
CELERY_BEAT_SCHEDULE = {
    "jobs.sweep": {"task": "jobs.sweep", "schedule": timedelta(seconds=2), "options": {"expires": 2}},
    "jobs.retention": {"task": "jobs.retention", "schedule": timedelta(hours=1), "options": {"expires": 600}},
    "infra.watch": {"task": "infra.watch", "schedule": timedelta(seconds=2), "options": {"expires": 2}},
    "infra.certificates": {"task": "infra.certificates", "schedule": timedelta(minutes=1), "options": {"expires": 60}},
    "infra.flooding": {"task": "infra.flooding", "schedule": timedelta(seconds=30), "options": {"expires": 30}},
    "infra.desired_sweep": {"task": "infra.desired_sweep", "schedule": timedelta(seconds=5), "options": {"expires": 5}},
    "storage.empty_bin": {"task": "storage.empty_bin", "schedule": timedelta(minutes=10), "options": {"expires": 300}},
    "compute.reconcile": {"task": "compute.reconcile", "schedule": timedelta(seconds=30), "options": {"expires": 20}},
    "infra.quarantine": {"task": "infra.quarantine", "schedule": timedelta(hours=1), "options": {"expires": 600}},
    "events.retention": {"task": "events.retention", "schedule": timedelta(hours=1), "options": {"expires": 600}},
}

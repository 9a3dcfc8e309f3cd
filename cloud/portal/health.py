"""Whether this process can do its work: asked by supervisors and load balancers, without signing in."""

from collections.abc import Callable

import redis
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

_PATIENCE_S = 2.0


@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """200 when the database and Redis answer, else 503; `checks` says which."""
    checks = {name: _try(check) for name, check in (("database", _database), ("redis", _redis))}
    is_well = all(checks.values())
    body = {"status": "ok" if is_well else "unavailable", "checks": checks}
    return JsonResponse(body, status=200 if is_well else 503)


def _try(check: Callable[[], None]) -> bool:
    try:
        check()
    except Exception:
        return False
    return True


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _redis() -> None:
    with redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S
    ) as client:
        client.ping()

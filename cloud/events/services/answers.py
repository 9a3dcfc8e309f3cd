"""The memory behind `Idempotency-Key`: key, act and answer are one transaction, so there is no half-known key."""

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from cloud.common.api.idempotency import Answer
from cloud.common.errors import Problem
from cloud.events.models import IdempotencyRecord

KEPT_FOR = timedelta(hours=24)


class KeyReused(Problem):
    """The key came before with another request."""

    status, code = 422, "idempotency_key_reused"


def once(*, owner: str, key: str, fingerprint: str, act: Callable[[], Answer]) -> tuple[Answer, bool]:
    """Do `act` and remember its answer, or give the remembered answer (second value true).

    A second caller with the same key waits at the unique index until the first is through. When `act` raises, nothing
    is remembered: nothing happened, and the same key may be tried again. Raises KeyReused (422).
    """
    while True:
        # The record that stood in the way may expire and go before it is read: then the key is fresh.
        with suppress(IdempotencyRecord.DoesNotExist):
            return _once(owner=owner, key=key, fingerprint=fingerprint, act=act)


@transaction.atomic
def _once(*, owner: str, key: str, fingerprint: str, act: Callable[[], Answer]) -> tuple[Answer, bool]:
    key_hash = hashlib.sha256(key.encode()).hexdigest()
    IdempotencyRecord.objects.filter(owner=owner, key_hash=key_hash, created_at__lt=timezone.now() - KEPT_FOR).delete()
    made = IdempotencyRecord(owner=owner, key_hash=key_hash, fingerprint=fingerprint)
    IdempotencyRecord.objects.bulk_create([made], ignore_conflicts=True)
    held = IdempotencyRecord.objects.get(owner=owner, key_hash=key_hash)
    if held.pk == made.pk:
        answer = act()
        IdempotencyRecord.objects.filter(pk=made.pk).update(answer=_seal(answer))
        return answer, False
    if held.fingerprint != fingerprint:
        raise KeyReused(
            _("This Idempotency-Key was used for another request."),
            advice=_("Use a fresh key for a new request; repeat a request with exactly the same body."),
        )
    return _unseal(bytes(held.answer or b"")), True


def _box() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"idempotency" + settings.SECRET_KEY.encode()).digest()))


def _seal(answer: Answer) -> bytes:
    return _box().encrypt(json.dumps([answer.status, answer.body, answer.headers]).encode())


def _unseal(sealed: bytes) -> Answer:
    try:
        status, body, headers = json.loads(_box().decrypt(sealed))
    except InvalidToken:
        raise KeyReused(
            _("The answer given for this Idempotency-Key can no longer be read."),
            code="idempotency_answer_lost",
            advice=_("Look at the resource itself, then use a fresh key."),
        ) from None
    return Answer(status, body, headers)

"""Renewing agents' certificates, and telling every machine whom to refuse."""

import logging

from django.db import transaction

from cloud.common import pki
from cloud.common.driver import DriverError
from cloud.common.wire import Document
from cloud.infra import certificates, observations
from cloud.infra.messages import CERTIFICATE_SECTION, CERTIFICATE_TOPIC, REVOKED_SECTION, CertificateWanted
from cloud.infra.models import Agent, Certificate, DesiredSection
from cloud.infra.services import desired

log = logging.getLogger(__name__)


@desired.provider(CERTIFICATE_SECTION)
def certificate_of(agent: Agent) -> Document:
    """The certificate that the machine should have."""
    return {"certificate": agent.certificate}


@desired.provider(REVOKED_SECTION)
def revoked(agent: Agent) -> Document:
    """Whom every machine must refuse."""
    return {"serials": sorted(Certificate.objects.revoked().values_list("serial", flat=True))}


@observations.on(CERTIFICATE_TOPIC)
def wanted(agent: Agent, body: Document) -> None:
    """A machine asks for a new certificate. Asked again before it has it, it gets the same one."""
    asked = CertificateWanted.from_document(body)
    # One who asks with the certificate it should have has installed it: it is that one which grows old.
    is_waiting = agent.certificate and asked.serial != agent.certificate_serial
    if is_waiting and pki.is_certificate_of(agent.certificate, asked.request):
        return
    try:
        signed = certificates.sign(agent, asked.request)
    except DriverError as error:
        log.warning("agent %s gets no new certificate: %s", agent.pk, error.detail)
        return
    with transaction.atomic():
        # Two requests at once must not leave two: whoever comes second sees the first one's.
        locked = Agent.objects.select_for_update().get(pk=agent.pk)
        if locked.certificate_serial != agent.certificate_serial or not locked.redis_password_hash:
            return
        certificates.note(locked, signed)
        desired.touch(locked, CERTIFICATE_SECTION)
    log.info("agent %s gets a new certificate, good until %s", agent.pk, signed.expires_at)


@transaction.atomic
def tell_revoked() -> None:
    """Have every machine know whom to refuse, when somebody was revoked of whom they were not told yet."""
    untold = Certificate.objects.revoked().filter(is_told=False).select_for_update()
    if keys := [row.pk for row in untold]:
        desired.touch_all(Agent.objects.exclude(enrolled_at=None), REVOKED_SECTION)
        Certificate.objects.filter(pk__in=keys).update(is_told=True)


def tell_newcomer(agent: Agent) -> None:
    """An agent that spoke for the first time knows nobody to refuse yet; in the caller's transaction."""
    is_known = DesiredSection.objects.filter(agent=agent, section=REVOKED_SECTION).exists()
    if not is_known and Certificate.objects.revoked().exists():
        desired.touch(agent, REVOKED_SECTION)


def look_after() -> None:
    """What runs by the clock: words that were lost, and what is past its end."""
    tell_revoked()
    certificates.forget_expired()

"""The certificates of agents: signed for a while, renewed by the machines themselves, revoked for good.

A machine whose certificate's life is two thirds over asks for another (`CertificateWanted`); it comes back as its
section `certificate`. Whom the platform no longer trusts is in every machine's section `revoked`.
"""

import logging
from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now

from cloud.common import pki, sealing
from cloud.common.driver import Rejected
from cloud.config.services import value
from cloud.infra import signals
from cloud.infra.drivers.ssh import resolve
from cloud.infra.models import Agent, Certificate

log = logging.getLogger(__name__)


def sign(agent: Agent, request: str) -> pki.Signed:
    """Sign an agent's request for its names, for as long as the setting says. Raises Rejected."""
    addresses = sorted({agent.address, resolve(agent.address, agent.ssh_port, may_loop=True)})
    life = timedelta(days=value("agent.certificate_life_days"))
    try:
        return pki.sign_request(settings.MICA["pki"], request, agent=str(agent.pk), addresses=addresses, life=life)
    except pki.PkiError as error:
        raise Rejected("certificate_refused", str(error)) from error


def note(agent: Agent, signed: pki.Signed) -> None:
    """Remember what was signed: as the agent's, and for the day it must be refused. Done twice is done once."""
    Certificate.objects.get_or_create(
        serial=signed.serial,
        defaults={"agent_uuid": agent.pk, "agent_name": agent.name, "expires_at": signed.expires_at},
    )
    agent.certificate, agent.certificate_serial = signed.certificate, signed.serial
    agent.certificate_expires_at, agent.public_key = signed.expires_at, sealing.public_key_of(signed.certificate)
    names = ["certificate", "certificate_serial", "certificate_expires_at", "public_key", "updated_at"]
    agent.save(update_fields=names)


def revoke(agent: Agent) -> int:
    """No certificate that was ever signed for the agent is good any more. Returns how many that concerns."""
    good = Certificate.objects.filter(agent_uuid=agent.pk, revoked_at=None, expires_at__gt=Now())
    revoked = good.update(revoked_at=Now())
    if revoked:
        signals.tell(signals.certificates_revoked, agent)
    return revoked


def forget_expired() -> None:
    """What is past its end is refused by its date alone."""
    Certificate.objects.filter(expires_at__lt=Now() - timedelta(days=1)).delete()

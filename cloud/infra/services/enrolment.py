"""Beginning the enrolment of a machine, whatever it will be: its agent's row and the context of `steps.ENROL`.

agent, context = enrolment.begin(kind=AgentKind.IMAGE_SERVER, name=…, address=…, ssh_password=…)
jobs.open(AddBackupStorage, resource=row, actor=actor, context=context)
"""

import ipaddress
import re
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from cloud.accounts.services import bootstrap
from cloud.common.constraints import told
from cloud.common.driver import Rejected
from cloud.common.errors import Conflict, Invalid
from cloud.infra import secrets
from cloud.infra.drivers import ssh
from cloud.infra.models import Agent, AgentKind

Context = dict[str, Any]
HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?\Z")
USER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\Z")
ALL_DIGITS = re.compile(r"[0-9.]+\Z")


def begin(
    *,
    kind: AgentKind,
    name: str,
    address: str,
    ssh_port: int = 22,
    ssh_user: str = "root",
    ssh_password: str = "",
    ssh_private_key: str = "",
    host_key_fingerprint: str = "",
    hypervisor: str = "libvirt",
) -> tuple[Agent, Context]:
    """Make the row of a new agent, in the caller's transaction, and put its SSH secret away for the job.

    With `host_key_fingerprint` (SHA256:…) only a machine that shows this key is signed in to; without, the key seen
    first is pinned. Raises Invalid for an address, user or secret that cannot be, Conflict for an address in use.
    """
    address = clean_address(address)
    secret = _clean_secret(ssh_user, ssh_password, ssh_private_key)
    taken = Conflict(
        _("%(address)s is enrolled already.") % {"address": address},
        code="address_in_use",
        advice=_("Use the machine that is there, or delete it first."),
        errors={"address": [_("This machine is enrolled already.")]},
    )
    with told({"agent_address_once": taken, "host_address_once": taken}):
        agent = Agent.objects.create(
            kind=kind,
            name=name,
            address=address,
            ssh_port=ssh_port,
            ssh_user=ssh_user,
            host_key_fingerprint=_clean_fingerprint(host_key_fingerprint),
            project=bootstrap.admin_project(),
        )
    return agent, {
        "agent": str(agent.pk),
        "credentials": secrets.keep(secret),
        "is_new": True,
        "hypervisor": hypervisor,
    }


def again(
    agent: Agent,
    *,
    ssh_port: int | None = None,
    ssh_user: str | None = None,
    ssh_password: str = "",
    ssh_private_key: str = "",
    host_key_fingerprint: str = "",
    hypervisor: str = "libvirt",
) -> Context:
    """The context to enrol a known machine anew, in the caller's transaction.

    `host_key_fingerprint` confirms a changed host key. A failed job puts the agent's row back to what it was.
    """
    secret = _clean_secret(ssh_user or agent.ssh_user, ssh_password, ssh_private_key)
    kept = ("ssh_port", "ssh_user", "host_key_type", "host_key_fingerprint")
    before = {name: getattr(agent, name) for name in (*kept, "certificate", "certificate_serial", "public_key")}
    expires_at = agent.certificate_expires_at
    before["certificate_expires_at"] = expires_at.isoformat() if expires_at else None
    agent.ssh_port, agent.ssh_user = ssh_port or agent.ssh_port, ssh_user or agent.ssh_user
    if host_key_fingerprint:
        agent.host_key_type, agent.host_key_fingerprint = "", _clean_fingerprint(host_key_fingerprint)
    agent.save(update_fields=[*kept, "updated_at"])
    return {
        "agent": str(agent.pk),
        "credentials": secrets.keep(secret),
        "is_new": False,
        "hypervisor": hypervisor,
        "before": before,
    }


def clean_address(address: str) -> str:
    """An IP address or DNS name as it is stored. Raises Invalid for anything else, and for this machine's loopback."""
    text = address.strip().lower()
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        if not HOST_NAME.match(text) or ALL_DIGITS.match(text):
            raise _invalid("address", _("Give an IP address or a DNS name.")) from None
        is_refused = text.rstrip(".") == "localhost" or text.rstrip(".").endswith(".localhost")
        text = text.rstrip(".")
    else:
        text = parsed.compressed
        is_refused = not ssh.is_reachable_kind(text)
    if is_refused and not settings.MICA["allow_loopback_hosts"]:
        raise _invalid("address", _("Give the address that the machine has in the management network."))
    return text


def _clean_secret(user: str, password: str, private_key: str) -> dict[str, str]:
    if not USER_NAME.match(user):
        raise _invalid("ssh_user", _("This is no user name."))
    if bool(password) == bool(private_key):
        message = _("Give either a password or a private key.")
        raise _invalid("ssh_password", message)
    if "\n" in password or "\0" in password:
        raise _invalid("ssh_password", _("A password is one line."))
    if private_key:
        try:
            ssh.load_private_key(private_key)
        except Rejected as error:
            raise _invalid("ssh_private_key", error.detail) from error
    return {"password": password, "private_key": private_key}


def _clean_fingerprint(text: str) -> str:
    if text and not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", text):
        message = _("Give it as ssh-keygen -l prints it: SHA256: and 43 characters.")
        raise _invalid("host_key_fingerprint", message)
    return text.rstrip("=")


def _invalid(field: str, message: Any) -> Invalid:
    return Invalid(message, code=f"invalid_{field}", errors={field: [message]})

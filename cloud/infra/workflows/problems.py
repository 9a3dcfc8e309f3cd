"""What went wrong while a machine was enrolled, in the user's words: code → title of the trouble and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.utils.translation import gettext_lazy as _

from cloud.common.driver import DriverError
from cloud.common.errors import Problem
from cloud.common.text import filled

TITLE = _("The machine cannot be enrolled")
# code: (what, advice); `%(detail)s` is the driver's own English sentence, kept for those who look closer.
TEXTS: dict[str, tuple[Any, Any]] = {
    "address_unknown": (
        _("No machine is known by this name. (%(detail)s)"),
        _("Check the spelling, or give its IP address."),
    ),
    "address_refused": (
        _("The address leads back to this machine or to no single machine. (%(detail)s)"),
        _("Give the address that the machine has in the management network."),
    ),
    "host_unreachable": (
        _("The machine does not answer. (%(detail)s)"),
        _("Check that it is on, that the address is right, and that no firewall drops the SSH port."),
    ),
    "no_route": (
        _("There is no route to the machine's network. (%(detail)s)"),
        _("Check the address and the routes from the management network."),
    ),
    "ssh_refused": (
        _("The machine answers, but nothing takes SSH connections there. (%(detail)s)"),
        _("Start its SSH service, or give the right port."),
    ),
    "not_ssh": (
        _("What answers at this port is not an SSH service. (%(detail)s)"),
        _("Give the port of the machine's SSH service."),
    ),
    "ssh_lost": (
        _("The SSH connection broke. (%(detail)s)"),
        _("Check the network and the machine, then try again."),
    ),
    "ssh_timed_out": (
        _("The machine took too long over SSH. (%(detail)s)"),
        _("Check its load and its disk, then try again."),
    ),
    "ssh_secret_wrong": (
        _("The machine refused to let us sign in. (%(detail)s)"),
        _("Check user and password or key, and that the SSH service allows this user to sign in with it."),
    ),
    "ssh_key_unreadable": (_("The private key cannot be used. (%(detail)s)"), _("Give it in OpenSSH or PEM format.")),
    "host_key_changed": (
        _("The machine shows another SSH host key than before: it is a new or another one. (%(detail)s)"),
        _("If you know why, reconnect it and confirm the new fingerprint; otherwise find out who answers there."),
    ),
    "not_root": (
        _("The user may not become root on the machine. (%(detail)s)"),
        _("Give root's credentials, or those of a user whom sudo allows everything."),
    ),
    "python_missing": (
        _("The machine has no Python 3.11 or later at /usr/bin/python3. (%(detail)s)"),
        _("Install it: apt install python3."),
    ),
    "packages_missing": (
        _("The machine lacks what the agent needs: %(detail)s"),
        _("Install what is named, then try again."),
    ),
    "libvirt_not_running": (_("libvirt does not run on the machine. %(detail)s"), _("Start it, then try again.")),
    "memory_too_small": (_("The machine has too little memory. %(detail)s"), _("Use a larger machine.")),
    "disk_full": (_("The machine's disk is full. (%(detail)s)"), _("Make room on it, then try again.")),
    "already_enrolled": (
        _("This machine is enrolled already. (%(detail)s)"),
        _("Use the one that is there, or delete it first."),
    ),
    "no_service_manager": (
        _("The machine has nothing that would start the agent. (%(detail)s)"),
        _("Use a machine with systemd."),
    ),
    "certificate_refused": (_("The machine's certificate request was refused. (%(detail)s)"), _("Try again.")),
    "command_failed": (
        _("A command on the machine failed. (%(detail)s)"),
        _("Correct what it complains about, then try again."),
    ),
}


class Unfit(Problem):
    """A machine that cannot be enrolled as it is."""

    status, code, title = 422, "not_enrolled", TITLE


def of(error: DriverError, **extra: Any) -> Problem:
    """The driver's error as a problem for the user."""
    text, advice = TEXTS.get(error.code, ("%(detail)s", ""))
    return Unfit(filled(text, detail=error.detail), code=error.code, advice=advice, **extra)


@contextmanager
def told() -> Iterator[None]:
    """Let driver errors leave the block as problems."""
    try:
        yield
    except DriverError as error:
        shown = getattr(error, "shown", None)
        extra = {"host_key_type": shown.type, "host_key_fingerprint": shown.fingerprint} if shown else {}
        raise of(error, **extra) from error

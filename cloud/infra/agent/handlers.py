"""The machine's own part in leaving the cloud, in becoming a newer release, and in who may speak with it."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

from cloud.agent import certificate, upgrade, wording
from cloud.agent.certificate import OwnCertificate
from cloud.agent.registry import Call, Machine, command, section, stream_verb
from cloud.agent.upgrade import Offer, Upgrade
from cloud.common.driver import DriverError, Rejected
from cloud.common.tickets import Ticket
from cloud.common.wire import Document
from cloud.infra.messages import CERTIFICATE_SECTION, REVOKED_SECTION, UPGRADE_VERB, ConfirmRelease, Retire

SUPERVISOR_TOOL = Path("/etc/mica/supervisorctl")
SUPERVISOR_FILE = Path("/etc/mica/supervisor.d/mica-agent.conf")
SYSTEMD_FILE = Path("/etc/systemd/system/mica-agent.service")
UNIT = "mica-agent"


@command(Retire)
def retire(message: Retire, call: Call) -> None:
    """Take unit and access away, and have the service manager end this process.

    It ends by SIGTERM, on which the agent finishes short work: the answer to this command still leaves. A machine of
    the simulator has nothing of its own to leave: it is gone when the simulator's list is written anew.
    """
    if call.machine.disk is not None:
        return
    shutil.rmtree(call.machine.config.directory, ignore_errors=True)
    if SUPERVISOR_TOOL.exists():
        SUPERVISOR_FILE.unlink(missing_ok=True)
        _in_background([SUPERVISOR_TOOL.read_text().strip(), "update"])
    elif SYSTEMD_FILE.exists():
        _in_background(["systemctl", "disable", "--now", UNIT])


def _in_background(argv: list[str]) -> None:
    # A session of its own: it must live on while it ends us.
    null = subprocess.DEVNULL
    subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True)


@stream_verb(UPGRADE_VERB)
async def take_release(
    ticket: Ticket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, machine: Machine
) -> None:
    """Say {"state": "present"} or {"state": "wanted"}; take what is wanted, then say {"state": "installed"} or why not.

    Each is one JSON line. When the release is installed the agent begins anew as that, on trial until `ConfirmRelease`.
    """
    own, offer = _upgrade(machine), _offer(ticket)
    if own.is_present(offer):
        return await _say(writer, state="present")
    own.expect_acceptable(offer)
    await _say(writer, state="wanted")
    try:
        await _receive(reader, own.arriving, offer.size_bytes)
        await asyncio.to_thread(own.install, offer)
    except DriverError as error:
        return await _say(writer, state="refused", code=error.code, detail=error.detail)
    finally:
        own.arriving.unlink(missing_ok=True)
    await _say(writer, state="installed")
    own.restart()


async def _say(writer: asyncio.StreamWriter, **said: str) -> None:
    writer.write(json.dumps(wording.fit(said)).encode() + b"\n")
    await writer.drain()


@section(REVOKED_SECTION)
def refuse_revoked(body: Document, machine: Machine) -> None:
    """Body {serials: [hexadecimal text]}: all certificates that no machine may be shown any more."""
    machine.peers.revoke([str(serial) for serial in body["serials"]])


@section(CERTIFICATE_SECTION)
def install_certificate(body: Document, machine: Machine) -> None:
    """Body {certificate}: what control signed last for this machine."""
    own = machine.resources.get(certificate.RESOURCE)
    if body.get("certificate") and isinstance(own, OwnCertificate):
        own.install(str(body["certificate"]))


@command(ConfirmRelease)
def confirm_release(message: ConfirmRelease, call: Call) -> None:
    _upgrade(call.machine).confirm(message.version)


def _upgrade(machine: Machine) -> Upgrade:
    found = machine.resources.get(upgrade.RESOURCE)
    if not isinstance(found, Upgrade):
        raise Rejected("not_a_bundle", "This agent cannot be upgraded in place.")
    return found


def _offer(ticket: Ticket) -> Offer:
    try:
        version, sha256 = str(ticket.params["version"]), str(ticket.params["sha256"])
        return Offer(version, sha256, int(ticket.params["size_bytes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("malformed_offer", f"The ticket offers no release: {error!r}") from error


async def _receive(reader: asyncio.StreamReader, path: Path, size_bytes: int) -> None:
    left = size_bytes
    with path.open("wb") as file:
        while left and (chunk := await reader.read(min(left, 1 << 18))):
            await asyncio.to_thread(file.write, chunk)
            left -= len(chunk)
    if left:
        raise Rejected("release_damaged", f"The stream ended {left} bytes early.")

"""The machine's own part in leaving the cloud."""

import shutil
import subprocess
from pathlib import Path

from cloud.agent.registry import Call, command
from cloud.infra.messages import Retire

SUPERVISOR_TOOL = Path("/etc/mica/supervisorctl")
SUPERVISOR_FILE = Path("/etc/mica/supervisor.d/mica-agent.conf")
SYSTEMD_FILE = Path("/etc/systemd/system/mica-agent.service")
UNIT = "mica-agent"


@command(Retire)
def retire(message: Retire, call: Call) -> None:
    """Take unit and access away, and have the service manager end this process.

    It ends by SIGTERM, on which the agent finishes short work: the answer to this command still leaves.
    """
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

"""The private files of a lab machine: what differs from the machine it runs on."""

from __future__ import annotations

import configparser
import secrets
import subprocess
import uuid
from pathlib import Path

from launcher.instance import Instance
from launcher.lab.plan import MACHINES, OUTSIDE, OUTSIDE_ADDRESS, MachinePlan
from launcher.process import run

SUPERVISOR_SOCKET = "/run/mica-host/supervisor.sock"
SUPERVISOR_CONFIG = "/etc/mica/supervisord.conf"
SUPERVISORCTL = "/etc/mica/bin/supervisorctl"
# folder under <data>/lab/<machine> → where it is mounted
FOLDERS = {
    "etc-ssh": "/etc/ssh",
    "etc-mica": "/etc/mica",
    "opt-mica": "/opt/mica",
    "lib-agent": "/var/lib/mica-agent",
    "log-agent": "/var/log/mica-agent",
    "srv": "/srv",
}
LIBVIRT_FOLDERS = {
    "etc-libvirt": "/etc/libvirt",
    "lib-libvirt": "/var/lib/libvirt",
    "log-libvirt": "/var/log/libvirt",
    "cache-libvirt": "/var/cache/libvirt",
}
FILES = {name: f"/etc/{name}" for name in ("passwd", "group", "shadow", "hostname", "hosts", "machine-id")}
# libvirt looks these up at start; its Debian package that makes them also starts things, so we make them here.
LIBVIRT_USER = "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"
LIBVIRT_GROUPS = ("libvirt-qemu:x:64055:", "libvirt:x:64056:")
ROOT_HOME = "/etc/mica/home"
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
Subsystem sftp internal-sftp
"""
LIBVIRTD_CONFIG = """\
listen_tls = 0
listen_tcp = 0
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
max_clients = 200
host_uuid = "{uuid}"
log_outputs = "3:stderr"
"""
# No cgroups, security labels or mount namespaces to give to QEMU inside a lab machine; real hosts keep the defaults.
QEMU_CONFIG = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
set_process_name = 0
seccomp_sandbox = 0
max_core = 0
vnc_listen = "127.0.0.1"
migration_address = "0.0.0.0"
migration_host = "{address}"
"""


def folder(instance: Instance, machine: MachinePlan) -> Path:
    return instance.data / "lab" / machine.name


def machine_uuid(instance: Instance, machine: MachinePlan) -> uuid.UUID:
    """The same at every start: libvirt's host uuid and the machine-id."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"{machine.name}.{instance.name}.mica")


def binds(instance: Instance, machine: MachinePlan) -> list[tuple[str, str]]:
    """What is mounted where: (source, target), after prepare()."""
    base = folder(instance, machine)
    folders = FOLDERS | (LIBVIRT_FOLDERS if machine.is_host else {})
    pairs = [(str(base / name), target) for name, target in folders.items()]
    return pairs + [(str(base / name), target) for name, target in FILES.items() if Path(target).exists()]


def root_password(instance: Instance, machine: MachinePlan) -> str:
    return (folder(instance, machine) / "root-password").read_text().strip()


def prepare(instance: Instance, machine: MachinePlan) -> None:
    """Write the machine's private files; idempotent: keys and password stay as they were made first."""
    base = folder(instance, machine)
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o700)
    for name, target in (FOLDERS | (LIBVIRT_FOLDERS if machine.is_host else {})).items():
        (base / name).mkdir(exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)  # an empty mount point on the machine we run on
    _write_accounts(base)
    (base / "hostname").write_text(f"{machine.name}\n")
    (base / "machine-id").write_text(f"{machine_uuid(instance, machine).hex}\n")
    names = [f"{other.address} {other.name}" for other in MACHINES] + [f"{OUTSIDE_ADDRESS} {OUTSIDE.name}"]
    (base / "hosts").write_text("\n".join(["127.0.0.1 localhost", "::1 localhost", *names]) + "\n")
    _write_sshd(base / "etc-ssh")
    if machine.is_host:
        (base / "log-libvirt/qemu").mkdir(exist_ok=True)
        settings = base / "etc-libvirt"
        (settings / "libvirtd.conf").write_text(LIBVIRTD_CONFIG.format(uuid=machine_uuid(instance, machine)))
        (settings / "qemu.conf").write_text(QEMU_CONFIG.format(address=machine.address))
    _write_supervisor(instance, machine, base / "etc-mica")


def _write_accounts(base: Path) -> None:
    password_file = base / "root-password"
    if not password_file.exists():
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(18) + "\n")
    password = password_file.read_text()
    hashed = run(["openssl", "passwd", "-6", "-stdin"], stdin=password, what="Hashing a password").strip()
    passwd = Path("/etc/passwd").read_text().splitlines()
    group = Path("/etc/group").read_text().splitlines()
    own_root = f"root:x:0:0:root:{ROOT_HOME}:/bin/bash"
    passwd = [own_root if line.startswith("root:") else line for line in passwd]
    _write_lines(base / "passwd", _with(passwd, LIBVIRT_USER), 0o644)
    _write_lines(base / "group", _with(_with(group, LIBVIRT_GROUPS[0]), LIBVIRT_GROUPS[1]), 0o644)
    # Nobody of the surrounding machine can sign in here: root has a password and a home of its own, without its keys.
    users = [line.partition(":")[0] for line in passwd if not line.startswith("root:")]
    shadow = [f"root:{hashed}:19000:0:99999:7:::", *(f"{user}:*:19000::::::" for user in users)]
    _write_lines(base / "shadow", shadow, 0o600)


def _write_lines(path: Path, lines: list[str], mode: int) -> None:
    path.touch(mode=mode)
    path.write_text("\n".join(lines) + "\n")


def _with(lines: list[str], line: str) -> list[str]:
    name = line.partition(":")[0]
    return lines if any(there.startswith(f"{name}:") for there in lines) else [*lines, line]


def _write_sshd(settings: Path) -> None:
    (settings / "sshd_config").write_text(SSHD_CONFIG)
    key = settings / "ssh_host_ed25519_key"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)


def _write_supervisor(instance: Instance, machine: MachinePlan, settings: Path) -> None:
    (settings / "supervisor.d").mkdir(exist_ok=True)
    (settings / "bin").mkdir(exist_ok=True)
    (settings / Path(ROOT_HOME).name).mkdir(mode=0o700, exist_ok=True)
    wrapper = settings / "bin/supervisorctl"
    wrapper.write_text(f'#!/bin/sh\nexec "$(cat /etc/mica/venv)/bin/supervisorctl" -c {SUPERVISOR_CONFIG} "$@"\n')
    wrapper.chmod(0o755)
    (settings / "venv").write_text(f"{instance.venv}\n")
    (settings / "supervisorctl").write_text(f"{SUPERVISORCTL}\n")  # enrolment looks here for the tool
    config = configparser.RawConfigParser()
    config["unix_http_server"] = {"file": SUPERVISOR_SOCKET, "chmod": "0700"}
    config["supervisord"] = {
        "nodaemon": "true",
        "user": "root",
        "logfile": "/var/log/mica-agent/supervisord.log",
        "pidfile": "/run/mica-host/supervisord.pid",
        "childlogdir": "/var/log/mica-agent",
    }
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    config["supervisorctl"] = {"serverurl": f"unix://{SUPERVISOR_SOCKET}"}
    config["include"] = {"files": "/etc/mica/supervisor.d/*.conf"}
    programs = {"sshd": "/usr/sbin/sshd -D -e -f /etc/ssh/sshd_config"}
    if machine.is_host:
        programs["libvirtd"] = "/usr/sbin/libvirtd -f /etc/libvirt/libvirtd.conf"
    for name, command in programs.items():
        config[f"program:{name}"] = {
            "command": command,
            "autorestart": "true",
            "startsecs": "0",
            "startretries": "50",
            "redirect_stderr": "true",
            "stdout_logfile": f"/var/log/mica-agent/{name}.log",
            "stdout_logfile_maxbytes": "5MB",
            "stdout_logfile_backups": "1",
        }
    with (settings / "supervisord.conf").open("w") as file:
        config.write(file)

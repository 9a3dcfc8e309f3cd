"""A private PostgreSQL cluster: unix socket only, callers known by their system user."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from launcher.control.accounts import as_user, give, own_folder
from launcher.errors import Refusal
from launcher.instance import Instance
from launcher.process import SYSTEM_PATH, run, wait_until

USER = "postgres"
NAME = "mica"  # of role and database
VERSIONS = Path("/usr/lib/postgresql")
# root on this machine may be the cloud's role and the superuser (pg_ident.conf(5), peer authentication).
HBA = "local all all peer map=mica\n"
IDENT = "mica root mica\nmica root postgres\nmica postgres postgres\n"
SETTINGS = """\
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0777
max_connections = 200
shared_buffers = 256MB
jit = off
max_parallel_workers_per_gather = 0
random_page_cost = 1.1
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
log_line_prefix = '%m [%p] %u@%d '
"""


def data_folder(instance: Instance) -> Path:
    return instance.data / "postgres"


def socket_folder(instance: Instance) -> Path:
    return instance.run / "postgres"


def url(instance: Instance) -> str:
    """What libpq understands; the socket folder stands percent-encoded in the host's place."""
    return f"postgresql://{NAME}@{quote(str(socket_folder(instance)), safe='')}/{NAME}"


def command(instance: Instance) -> list[str | Path]:
    return [*as_user(USER), _programs(instance) / "postgres", "-D", data_folder(instance)]


def prepare(instance: Instance) -> None:
    """Make the cluster once and write its configuration. Raises Refusal."""
    own_folder(socket_folder(instance), USER, 0o755)
    folder = data_folder(instance)
    if not (folder / "PG_VERSION").exists():
        own_folder(folder, USER)
        run(
            [
                *as_user(USER),
                _programs(instance) / "initdb",
                "--pgdata",
                folder,
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--lc-collate=C",
                f"--username={USER}",
                "--auth=peer",
                "--no-sync",
            ],
            what="initdb",
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
            cwd="/",
        )
    _write(folder / "pg_hba.conf", HBA)
    _write(folder / "pg_ident.conf", IDENT)
    _write(folder / "mica.conf", SETTINGS.format(sockets=socket_folder(instance)))
    main = folder / "postgresql.conf"
    if "include 'mica.conf'" not in main.read_text():
        with main.open("a") as file:
            file.write("include 'mica.conf'\n")


def wait_ready(instance: Instance) -> None:
    """Wait until it takes connections, then make role and database where they are missing. Raises Refusal."""
    door = socket_folder(instance) / ".s.PGSQL.5432"

    def is_ready() -> bool:
        if not door.exists():
            return False
        try:
            _sql(instance, "SELECT 1")
        except Refusal:
            return False  # still recovering
        return True

    wait_until(is_ready, 60, "PostgreSQL taking connections", f"See {instance.log}/postgres.log.")
    if not _sql(instance, "SELECT 1 FROM pg_roles WHERE rolname = 'mica'"):
        _sql(instance, "CREATE ROLE mica LOGIN CREATEDB")
    if not _sql(instance, "SELECT 1 FROM pg_database WHERE datname = 'mica'"):
        _sql(instance, "CREATE DATABASE mica OWNER mica")


def _sql(instance: Instance, statement: str) -> str:
    return run(
        [
            _programs(instance) / "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-h",
            socket_folder(instance),
            "-U",
            USER,
            "-d",
            USER,
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ],
        what="psql",
        cwd="/",
    ).strip()


def _programs(instance: Instance) -> Path:
    """The folder of the version that made the cluster, or of the newest one installed."""
    made_by = data_folder(instance) / "PG_VERSION"
    if made_by.exists():
        version = made_by.read_text().strip()
        if not (VERSIONS / version / "bin/postgres").exists():
            raise Refusal(
                f"The data of this instance were made by PostgreSQL {version}, which is no longer installed",
                f"apt-get install postgresql-{version}, or begin anew: ./mica down --purge && ./mica up",
            )
        return VERSIONS / version / "bin"
    found = sorted(VERSIONS.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if not found:
        raise Refusal("PostgreSQL is not installed", "apt-get install postgresql")
    return found[-1].parent


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    give(path, USER, 0o600)

"""Image servers (backup storages): added by address and SSH credentials, reconnected, taken out of use."""

from functools import partial
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.acts import acting, each
from cloud.common.errors import Conflict, Problem
from cloud.common.models import Availability, Connection
from cloud.infra import usage
from cloud.infra.models import Agent, AgentKind
from cloud.infra.services import changes, desired, enrolment
from cloud.jobs import services as jobs
from cloud.jobs.models import Job
from storage.models import BackupStorage, StorageState, copies
from storage.services import paths
from storage.workflows.add_backup_storage import AddBackupStorage, DeleteBackupStorage, ReconnectBackupStorage


def _has_agent(server: BackupStorage, actor: Actor) -> Problem | None:
    return None if server.agent_id else Conflict(_("%(name)s has no agent.") % {"name": server}, code="no_agent")


def _locked(server: BackupStorage) -> BackupStorage:
    found: BackupStorage = (
        BackupStorage.objects.select_for_update(of=("self",)).select_related("agent").get(pk=server.pk)
    )
    return found


@transaction.atomic
def add(
    *, actor: Actor, address: str, path: str, name: str = "", description: str = "", **ssh: Any
) -> tuple[list[BackupStorage], Job]:
    """Add a machine as an image server: the job signs in by SSH, installs the agent and prepares the directory.

    `ssh` are the further arguments of `enrolment.begin`. Raises Invalid, Conflict `address_in_use`. When the job fails,
    nothing of the server stays.
    """
    actor.require("backup_storage.add")
    path = paths.checked(path)
    agent, context = enrolment.begin(kind=AgentKind.IMAGE_SERVER, name=name or address, address=address, **ssh)
    server = BackupStorage.objects.create(
        uuid=agent.pk,  # one name for the machine everywhere: its agent labels samples with its own
        name=agent.name,
        description=description,
        project=agent.project,
        agent=agent,
        address=agent.address,
        path=path,
        state=StorageState.CREATING,
    )
    desired.touch(agent, copies.SECTION)
    return [server], jobs.open(AddBackupStorage, resource=server, actor=actor, context=context)


@acting("backup_storage.update")
def update(server: BackupStorage, *, actor: Actor, **changed: Any) -> BackupStorage:
    """Change the name or the description."""
    return changes.update(server, "backup_storage.update", actor=actor, changed=changed)


@acting("backup_storage.enable")
def enable(server: BackupStorage, *, actor: Actor) -> None:
    """Let new images come to the server."""
    changes.set_availability(server, Availability.ENABLED, "backup_storage.enable", actor=actor)


@acting("backup_storage.disable")
def disable(server: BackupStorage, *, actor: Actor) -> None:
    """Let no new image come to the server; those on it can be used."""
    changes.set_availability(server, Availability.DISABLED, "backup_storage.disable", actor=actor)


@acting("backup_storage.reconnect", states=[StorageState.READY], checks=[each(_has_agent)], lock=_locked)
def reconnect(server: BackupStorage, *, actor: Actor, **ssh: Any) -> Job:
    """Install the agent on the server's machine again; `ssh` as for `enrolment.again`. When the job fails, the agent
    that was there works on."""
    context = enrolment.again(_agent(server), **ssh)
    return jobs.open(ReconnectBackupStorage, resource=server, actor=actor, context=context)


@acting(
    "backup_storage.delete", states=[StorageState.READY], checks=[each(_has_agent), usage.nothing_blocks], lock=_locked
)
def delete(server: BackupStorage, *, actor: Actor) -> Job:
    """Take a server out of the cloud. Raises Conflict `in_use` while images are on it, those in the bin included."""
    is_away = _agent(server).connection != Connection.CONNECTED
    unused = partial(usage.expect_none, server)
    usage.expect_none_without(_agent(server).pk, unused) if is_away else unused()
    # From here on no image can come: `images.add` takes ready servers only, and holds the row.
    BackupStorage.objects.filter(pk=server.pk).update(state=StorageState.DELETING)
    context = {"agent": str(_agent(server).pk)}
    return jobs.open(DeleteBackupStorage, resource=server, actor=actor, context=context)


def _agent(server: BackupStorage) -> Agent:
    assert server.agent is not None  # the acts' checks say so
    return server.agent

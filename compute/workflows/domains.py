"""An instance as its host must know it."""

from dataclasses import asdict

from cloud.infra import secrets
from compute.messages import CloudInit, DomainNic, DomainSpec, DomainVolume
from compute.models import Instance
from network.models import Nic
from network.services import nics
from storage.models import Volume
from storage.services import volumes


def spec(instance: Instance) -> DomainSpec:
    """Everything the agent needs to run the instance: volumes in device order, NICs, the first-boot seed."""
    attached = (
        Volume.objects.filter(instance_uuid=instance.pk).select_related("primary_storage").order_by("device_index")
    )
    plugged = Nic.objects.filter(instance_uuid=instance.pk).select_related("l3__l2").order_by("device_index")
    return DomainSpec(
        uuid=str(instance.pk),
        name=instance.name,
        cpu=instance.cpu,
        memory_bytes=instance.memory_bytes,
        project=str(instance.project_id),
        volumes=tuple(DomainVolume.from_document(asdict(volumes.source(volume))) for volume in attached),
        nics=tuple(DomainNic.from_document(nics.attachment(nic).to_document()) for nic in plugged),
        seed=CloudInit(
            hostname=instance.hostname,
            ssh_keys=tuple(instance.ssh_keys),
            user_data=secrets.unseal(instance.user_data_sealed) if instance.user_data_sealed else instance.user_data,
            network="dhcp",
        ),
    )

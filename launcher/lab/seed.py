"""What the lab tells the cloud about itself, so that `manage.py seed_lab` can add its machines."""

from __future__ import annotations

from launcher.instance import Instance
from launcher.lab import image, plan
from launcher.lab.machine import Machine


def document(instance: Instance) -> dict[str, object]:
    """The lab as JSON: machines with their SSH passwords, the guest image, networks, the public SSH key."""
    return {
        "machines": [
            {
                "name": machine.name,
                "kind": machine.kind,
                "address": machine.address,
                "vtep_address": next(
                    (cable.address.partition("/")[0] for cable in machine.cables if cable.bridge == "vtep"), None
                ),
                "provider_interface": next(
                    (cable.interface for cable in machine.cables if cable.bridge == "provider"), None
                ),
                "ssh_port": 22,
                "username": "root",
                "password": Machine(instance, machine).password(),
            }
            for machine in plan.MACHINES
        ],
        "image": {"name": "mica-guest", **image.facts(instance)},
        "provider_network": {"cidr": plan.PROVIDER_NETWORK, "gateway": plan.OUTSIDE_ADDRESS},
        "paths": {"primary_storage": plan.PRIMARY_STORAGE_PATH, "images": plan.IMAGES_PATH},
        "ssh_public_key": instance.ssh_key.with_suffix(".pub").read_text().strip(),
    }

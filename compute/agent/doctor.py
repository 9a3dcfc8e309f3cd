"""What a host tells the doctor of its domains, and how it takes one out of the way."""

from cloud.agent.registry import Machine, inspector, keeper
from cloud.common.wire import Document
from compute.agent import hypervisor
from compute.messages import DOMAIN_KEEPER


@inspector("compute")
def look(asked: Document, machine: Machine) -> Document:
    """{"domains": [DomainSummary], "aside": [AsideDomain]}"""
    found = hypervisor.of(machine)
    return {
        "domains": [domain.to_document() for domain in found.inventory()],
        "aside": [domain.to_document() for domain in found.aside()],
    }


class DomainKeeper:
    """`thing` is {"uuid": …}."""

    def set_aside(self, id: str, thing: Document, machine: Machine) -> None:
        hypervisor.of(machine).set_aside(id, thing["uuid"])

    def put_back(self, id: str, thing: Document, machine: Machine) -> None:
        hypervisor.of(machine).put_back(id)

    def purge(self, id: str, thing: Document, machine: Machine) -> None:
        hypervisor.of(machine).purge(id)


keeper(DOMAIN_KEEPER, DomainKeeper())

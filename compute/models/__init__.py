from compute.models.domains import UnknownDomain
from compute.models.instances import Instance, InstanceState
from compute.models.offerings import InstanceOffering

__all__ = ["Instance", "InstanceOffering", "InstanceState", "UnknownDomain"]

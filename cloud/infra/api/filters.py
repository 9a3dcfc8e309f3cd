from django_filters import rest_framework as django_filters

from cloud.common.api.filters import ResourceFilterSet
from cloud.infra.models import Host


class HostFilterSet(ResourceFilterSet):
    zone = django_filters.UUIDFilter(field_name="cluster__zone")

    class Meta:
        model = Host
        fields = [
            *("name", "project", "cluster", "availability", "connection", "state", "activity", "address", "hostname"),
            *("os_name", "kernel", "hypervisor_version", "cpu_model", "cpu_threads", "memory_bytes", "is_kvm_usable"),
        ]

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from cloud.common.api.serializers import InputSerializer, Reference, ResourceSerializer, SummarySerializer
from cloud.infra.api.agent_state import AgentStateSerializer
from cloud.infra.models import Agent, Cluster, Host, Hypervisor, Zone
from cloud.infra.services.connection import REASONS

FACTS = {
    "type": "object",
    "description": "What the agent reported of its machine: hardware, disks, network cards, versions.",
    "additionalProperties": True,
}


class ZoneSerializer(ResourceSerializer):
    class Meta(ResourceSerializer.Meta):
        model = Zone
        fields = [*ResourceSerializer.Meta.fields, "availability"]


class ZoneInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)


class ClusterSerializer(ResourceSerializer):
    zone = SummarySerializer(read_only=True)

    class Meta(ResourceSerializer.Meta):
        model = Cluster
        fields = [*ResourceSerializer.Meta.fields, "zone", "hypervisor", "availability"]


class ClusterInput(InputSerializer):
    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    zone = Reference(Zone)
    hypervisor = serializers.ChoiceField(Hypervisor.choices, required=False)


class ConnectionReason(serializers.Serializer[Any]):
    """Why there is no connection, in the caller's language."""

    connection_reason = serializers.SerializerMethodField()

    def get_connection_reason(self, row: Any) -> str:
        return str(REASONS.get(row.connection_reason, row.connection_reason))


class CapacitySerializer(serializers.Serializer[Any]):
    """CPU and memory of a host: what it has, what of it may be promised in all, what is promised."""

    cpu_total = serializers.IntegerField(read_only=True, help_text="Hardware threads.")
    cpu_limit = serializers.IntegerField(read_only=True, help_text="Virtual CPUs that may be promised.")
    cpu_used = serializers.IntegerField(read_only=True, help_text="Virtual CPUs promised to instances.")
    memory_total_bytes = serializers.IntegerField(read_only=True)
    memory_limit_bytes = serializers.IntegerField(read_only=True)
    memory_used_bytes = serializers.IntegerField(read_only=True)


class HostSerializer(ConnectionReason, AgentStateSerializer, ResourceSerializer):
    cluster = SummarySerializer(read_only=True)
    zone = SummarySerializer(read_only=True, source="cluster.zone")
    capacity = serializers.SerializerMethodField(help_text="Null until the agent has reported its machine.")

    class Meta(ResourceSerializer.Meta):
        model = Host
        fields = [
            *ResourceSerializer.Meta.fields,
            "zone",
            "cluster",
            "address",
            "state",
            "activity",
            "availability",
            "connection",
            "connection_reason",
            "connection_changed_at",
            "hostname",
            "os_name",
            "kernel",
            "hypervisor_version",
            "cpu_model",
            "cpu_threads",
            "memory_bytes",
            "is_kvm_usable",
            "capacity",
            *AgentStateSerializer.AGENT_STATE,
        ]

    @extend_schema_field(CapacitySerializer(allow_null=True))
    def get_capacity(self, host: Host) -> dict[str, int] | None:
        held = getattr(host, "capacity", None)
        if held is None:
            return None
        return {
            "cpu_total": held.cpu_total,
            "cpu_limit": held.cpu_limit,
            "cpu_used": held.cpu_used,
            "memory_total_bytes": held.memory_total_bytes,
            "memory_limit_bytes": held.memory_limit_bytes,
            "memory_used_bytes": held.memory_used_bytes,
        }


class HostDetailSerializer(HostSerializer):
    agent = SummarySerializer(read_only=True, allow_null=True)
    facts = serializers.SerializerMethodField()

    class Meta(HostSerializer.Meta):
        fields = [*HostSerializer.Meta.fields, "agent", "facts"]

    @extend_schema_field(FACTS)
    def get_facts(self, host: Host) -> Any:
        return host.agent.facts if host.agent else {}


class CredentialsInput(InputSerializer):
    """How to sign in to a machine. The secret is used for this once and forgotten."""

    ssh_port = serializers.IntegerField(min_value=1, max_value=65535, required=False)
    ssh_user = serializers.CharField(max_length=64, required=False)
    ssh_password = serializers.CharField(max_length=1024, trim_whitespace=False, write_only=True, required=False)
    ssh_private_key = serializers.CharField(max_length=32768, write_only=True, required=False)
    host_key_fingerprint = serializers.CharField(
        max_length=128,
        required=False,
        help_text="SHA256:… as `ssh-keygen -l` prints it: sign in only to a machine that shows this key.",
    )


class HostInput(CredentialsInput):
    name = serializers.CharField(max_length=255, required=False, help_text="Default: the address.")
    description = serializers.CharField(max_length=4096, allow_blank=True, required=False)
    cluster = Reference(Cluster)
    address = serializers.CharField(max_length=253, help_text="IP address or DNS name in the management network.")


class AgentSerializer(ConnectionReason, AgentStateSerializer, ResourceSerializer):
    agent_version = None  # type: ignore[assignment]  # it is its own `version` here

    class Meta(ResourceSerializer.Meta):
        model = Agent
        fields = [
            *ResourceSerializer.Meta.fields,
            "kind",
            "address",
            "connection",
            "connection_reason",
            "connection_changed_at",
            "version",
            "protocol",
            "is_outdated",
            "clock_skew_s",
            "circuit",
            "warnings",
            "host_key_type",
            "host_key_fingerprint",
            "certificate_serial",
            "certificate_expires_at",
            "enrolled_at",
            "hello_at",
        ]


class SectionSerializer(serializers.Serializer[Any]):
    """One numbered section of the state a machine should have."""

    section = serializers.CharField(read_only=True)
    wanted = serializers.IntegerField(read_only=True)
    held = serializers.IntegerField(read_only=True)
    failure = serializers.SerializerMethodField()
    failures = serializers.SerializerMethodField()
    sent_at = serializers.DateTimeField(read_only=True, allow_null=True)

    @extend_schema_field(
        {
            "type": "object",
            "description": "Parts that fail though the number is held, as networks by uuid: nature, code and detail.",
            "additionalProperties": True,
        }
    )
    def get_failures(self, row: Any) -> Any:
        return row.failures

    @extend_schema_field(
        {
            "type": ["object", "null"],
            "description": "Why the machine could not converge: nature, code, detail, and the number it is about.",
            "additionalProperties": True,
        }
    )
    def get_failure(self, row: Any) -> Any:
        return row.failure


class AgentDetailSerializer(AgentSerializer):
    sections = SectionSerializer(many=True, read_only=True)
    facts = serializers.SerializerMethodField()

    class Meta(AgentSerializer.Meta):
        fields = [*AgentSerializer.Meta.fields, "sections", "facts"]

    @extend_schema_field(FACTS)
    def get_facts(self, agent: Agent) -> Any:
        return agent.facts

"""What an agent's own state adds to the machine it runs on, in any list."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from cloud.infra import releases
from cloud.infra.models import Agent
from cloud.infra.services import readiness
from cloud.jobs import circuit


class WarningSerializer(serializers.Serializer[Any]):
    """What a person should look at."""

    code = serializers.CharField(read_only=True)
    detail = serializers.CharField(read_only=True)


class CircuitSerializer(serializers.Serializer[Any]):
    """A machine that lives but does not answer is left alone for a while, longer each time."""

    failures = serializers.IntegerField(read_only=True)
    reason = serializers.CharField(read_only=True)
    opened_at = serializers.DateTimeField(read_only=True)
    until = serializers.DateTimeField(read_only=True, help_text="From then on it is tried again.")


class AgentStateSerializer(serializers.Serializer[Any]):
    """For a row with an `agent`, or an agent itself."""

    agent_version = serializers.SerializerMethodField()
    is_outdated = serializers.SerializerMethodField(help_text="Whether its agent is not of this control's release.")
    clock_skew_s = serializers.SerializerMethodField(help_text="By how much its clock is ahead of the platform's.")
    circuit = serializers.SerializerMethodField()
    warnings = serializers.SerializerMethodField()

    AGENT_STATE: ClassVar[list[str]] = ["agent_version", "is_outdated", "clock_skew_s", "circuit", "warnings"]

    def get_agent_version(self, row: Any) -> str:
        agent = _agent(row)
        return agent.version if agent else ""

    def get_is_outdated(self, row: Any) -> bool:
        agent = _agent(row)
        return releases.is_outdated(agent.version) if agent else False

    def get_clock_skew_s(self, row: Any) -> float | None:
        agent = _agent(row)
        return agent.clock_skew_s if agent else None

    @extend_schema_field(CircuitSerializer(allow_null=True))
    def get_circuit(self, row: Any) -> dict[str, Any] | None:
        held = self._held(_agent(row))
        if held is None:
            return None
        moments = {name: datetime.fromtimestamp(held[name], UTC).isoformat() for name in ("opened_at", "until")}
        return {
            **held,
            **moments,
            "reason": str(circuit.REASONS.get(held["reason"], held["reason"])),
        }

    @extend_schema_field(WarningSerializer(many=True))
    def get_warnings(self, row: Any) -> list[dict[str, str]]:
        agent = _agent(row)
        return readiness.warnings(agent, self._held(agent)) if agent else []

    def _held(self, agent: Agent | None) -> dict[str, Any] | None:
        """The agent's open breaker: Redis is asked once for a whole page."""
        kept: Any = self.context
        if "opened_circuits" not in kept:
            kept["opened_circuits"] = circuit.opened()
        found: dict[str, Any] | None = kept["opened_circuits"].get(str(agent.pk)) if agent else None
        return found


def _agent(row: Any) -> Agent | None:
    return row if isinstance(row, Agent) else row.agent

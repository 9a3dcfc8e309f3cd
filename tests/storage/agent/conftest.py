from tests.cloud.agent.conftest import agent_uuid, config, journal, machine, pki_dir  # noqa: F401

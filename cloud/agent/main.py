"""The agent's entry point: `agent.pyz {run,preflight,csr,simulate,selftest,version}`.

`HANDLERS` is the one list of modules that register what an agent can do.
"""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from cloud.agent import config, version, wording

log = logging.getLogger(__name__)

HANDLERS = (
    "cloud.infra.agent.handlers",
    "cloud.infra.agent.doctor",
    "compute.agent.handlers",
    "compute.agent.doctor",
    "network.agent.handlers",
    "network.agent.doctor",
    "storage.agent.handlers",
    "storage.agent.doctor",
)
# What only some kinds of machine have. Without it, a module that needs it registers nothing, and the facts say so.
NATIVE_LIBRARIES = ("libvirt", "libvirt_qemu", "nftables", "rados", "rbd")
# EX_CONFIG of sysexits.h.
UNREADY_EXIT = 78


def load_handlers() -> dict[str, str]:
    """Import every module of `HANDLERS`; {module: reason} for those whose native library this machine lacks."""
    left_out = {}
    for name in HANDLERS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in NATIVE_LIBRARIES:
                raise
            left_out[name] = f"the library {error.name} is not installed"
            log.warning("%s is left out: %s", name, left_out[name])
    return left_out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="agent.pyz", description="Mica's agent: drives the machine it runs on.")
    parser.add_argument("--config", type=Path, default=config.DIRECTORY, help="where agent.json and the keys are")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="work for the platform until told to stop")
    run.add_argument("--state", type=Path, default=config.STATE_DIRECTORY)
    run.add_argument("--runtime", type=Path, default=config.RUN_DIRECTORY)
    preflight = commands.add_parser("preflight", help="say as JSON what this machine has and lacks")
    preflight.add_argument("--kind", choices=("host", "image_server"), required=True)
    preflight.add_argument("--hypervisor", choices=("libvirt", "fake"), default="libvirt")
    preflight.add_argument("--folder", type=Path, action="append", default=[], help="a folder that needs room")
    csr = commands.add_parser("csr", help="print a certificate request; makes the key when it is absent")
    csr.add_argument("--uuid", required=True)
    simulate = commands.add_parser("simulate", help="be the agents of simulated machines until told to stop")
    simulate.add_argument("--directory", type=Path, required=True, help="where simulator.json is, or will be")
    commands.add_parser("selftest", help="load everything that `run` needs, and print the version")
    commands.add_parser("version", help="print the version")
    given = parser.parse_args(arguments)

    if given.command == "version":
        print(version.current())
        return 0
    if given.command == "preflight":
        from cloud.agent.preflight import look

        seen = look(given.kind, hypervisor=given.hypervisor, folders=tuple(given.folder))
        print(json.dumps(wording.fit(seen)))
        return 0
    if given.command == "csr":
        from cloud.common.pki import PkiError, request

        try:
            sys.stdout.write(request(given.config / "key.pem", given.uuid))
        except (PkiError, OSError, ValueError) as error:
            print(f"agent: {error}", file=sys.stderr)
            return 1
        return 0
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(threadName)s %(name)s: %(message)s"
    )
    for noisy in ("celery", "kombu"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if given.command == "simulate":
        from cloud.agent.simulator.process import Simulator

        load_handlers()
        Simulator(given.directory).run()
        return 0
    try:
        found = config.load(given.config)
    except config.ConfigError as error:
        print(f"agent: {error}", file=sys.stderr)
        return UNREADY_EXIT
    from cloud.agent.agent import Agent

    left_out = load_handlers()
    if given.command == "selftest":
        print(version.current())
        return 0
    Agent(found, left_out, state_dir=given.state, run_dir=given.runtime).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What every agent does for the doctor: one query that tells what is there, and the quarantine."""

import logging
from collections.abc import Callable

from cloud.agent.registry import INSPECTORS, KEEPERS, Call, Keeper, Machine, command, query
from cloud.common.driver import DriverError, NotFound
from cloud.common.wire import Failure
from cloud.infra.messages import Handled, Inspect, Inspection, Purge, PutBack, SetAside, Thing

log = logging.getLogger(__name__)


@query(Inspect)
def inspect(message: Inspect, machine: Machine) -> Inspection:
    parts, failures = {}, {}
    for part, asked in message.asked.items():
        look = INSPECTORS.get(part)
        if look is None:
            continue
        try:
            parts[part] = look(asked, machine)
        except DriverError as error:
            failures[part] = Failure(error.nature, error.code, error.detail)
        except Exception as error:
            log.exception("%s could not be looked at", part)
            failures[part] = Failure("failed", "internal_error", f"{type(error).__name__}: {error}")
    return Inspection(parts, failures)


@command(SetAside)
def set_aside(message: SetAside, call: Call) -> Handled:
    return _each(message.things, call, lambda keeper, thing: keeper.set_aside(thing.id, thing.body, call.machine))


@command(PutBack)
def put_back(message: PutBack, call: Call) -> Handled:
    return _each(message.things, call, lambda keeper, thing: keeper.put_back(thing.id, thing.body, call.machine))


@command(Purge)
def purge(message: Purge, call: Call) -> Handled:
    return _each(message.things, call, lambda keeper, thing: keeper.purge(thing.id, thing.body, call.machine))


def _each(things: list[Thing], call: Call, act: Callable[[Keeper, Thing], None]) -> Handled:
    """One that is refused does not stop the others; what is busy for the moment fails all, and is tried again."""
    done: list[str] = []
    refused: dict[str, Failure] = {}
    for thing in things:
        call.check_aborted()
        keeper = KEEPERS.get(thing.keeper)
        if keeper is None:
            detail = f"This agent cannot set {thing.keeper} aside; upgrade it."
            refused[thing.id] = Failure("unsupported", "unknown_keeper", detail)
            continue
        try:
            act(keeper, thing)
            done.append(thing.id)
        except NotFound as error:
            refused[thing.id] = Failure(error.nature, error.code, error.detail)
        except DriverError as error:
            if error.nature in ("transient", "aborted"):
                raise
            refused[thing.id] = Failure(error.nature, error.code, error.detail)
    return Handled(done, refused)

"""What control and agent say to each other, written down: one file a release, `protocol-<number>.json`.

    python -m tests.cloud.agent.messages.record

writes that of this release; do so when its PROTOCOL is fixed, and keep the one before it: the tests read both.
"""

import dataclasses
import importlib
import json
import types
import typing
from pathlib import Path
from typing import Any

from cloud.agent.version import PROTOCOL
from cloud.common import wire
from cloud.common.wire import Message

FOLDER = Path(__file__).parent
MODULES = ("cloud.infra.messages", "compute.messages", "network.messages", "storage.messages")
# Said by one side only, and read by it alone: Message itself says nothing.
Document = dict[str, Any]


def classes() -> dict[str, type[Message]]:
    """Every message, by module and name."""
    for module in MODULES:
        importlib.import_module(module)
    found: dict[str, type[Message]] = {}
    waiting = list(Message.__subclasses__())
    while waiting:
        made = waiting.pop()
        waiting += made.__subclasses__()
        if made.__module__ in (*MODULES, wire.__name__):
            found[f"{made.__module__}.{made.__qualname__}"] = made
    return dict(sorted(found.items()))


def recorded(made: type[Message]) -> Document:
    """A message class as data: its kind, its fields with type and whether they must be there, and an example."""
    hints = typing.get_type_hints(made)
    fields = {
        field.name: {"type": shape(hints[field.name]), "is_required": is_required(field)}
        for field in dataclasses.fields(made)
    }
    return {"kind": made.kind, "fields": fields, "example": example(made)}


def is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def shape(hint: Any) -> Any:
    """What a field looks like in JSON, whatever the class is called: two hints that fit each other give the same."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"or_null": shape(next(a for a in arguments if a is not type(None)))}
    if origin is typing.Literal:
        return "str"
    if origin in (list, tuple):
        return [shape(arguments[0])] if arguments else ["any"]
    if origin is dict:
        return {"values": shape(arguments[1])}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint.__name__
    return getattr(hint, "__name__", "any") if isinstance(hint, type) else "any"


def example(made: Any) -> Document:
    hints = typing.get_type_hints(made)
    return {field.name: _value(hints[field.name], field.name) for field in dataclasses.fields(made)}


def _value(hint: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _value(next(a for a in arguments if a is not type(None)), name)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (list, tuple):
        return [_value(arguments[0] if arguments else str, name)]
    if origin is dict:
        return {"key": _value(arguments[1], name)}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return example(hint)
    return {bool: True, int: 7, float: 1.5}.get(hint, name)


if __name__ == "__main__":
    out = FOLDER / f"protocol-{PROTOCOL}.json"
    document = {name: recorded(made) for name, made in classes().items()}
    out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(out)

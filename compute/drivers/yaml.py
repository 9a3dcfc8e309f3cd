"""Writes plain data as block YAML that every reader understands the same way. Standard library only.

Only what a seed needs: maps with string keys, lists, strings, integers, booleans. Whatever a string holds, it comes out
as one scalar: nothing in it can start another key. https://yaml.org/spec/1.2.2/#73-flow-scalar-styles
"""

import re
from collections.abc import Mapping, Sequence

Value = str | int | bool | Sequence["Value"] | Mapping[str, "Value"]

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*\Z")
_RESERVED = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}


def encode(value: Mapping[str, Value]) -> str:
    """The YAML document of a map, ending with a newline; keys keep their order. Raises TypeError for other types."""
    return "".join(f"{line}\n" for line in _map(value)) or "{}\n"


def _map(value: Mapping[str, Value]) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        lines += _entry(f"{_text(key)}:", item)
    return lines


def _entry(head: str, item: Value) -> list[str]:
    if isinstance(item, Mapping):
        return [head, *_indented(_map(item))] if item else [f"{head} {{}}"]
    if isinstance(item, Sequence) and not isinstance(item, str):
        return [head, *_indented(_list(item))] if item else [f"{head} []"]
    return [f"{head} {_scalar(item)}"]


def _list(value: Sequence[Value]) -> list[str]:
    lines: list[str] = []
    for item in value:
        if isinstance(item, Mapping) and item:
            first, *others = _map(item)
            lines += [f"- {first}", *_indented(others)]
        elif isinstance(item, Sequence) and not isinstance(item, str) and item:
            first, *others = _list(item)
            lines += [f"- {first}", *_indented(others)]
        else:
            lines += _entry("-", item)
    return lines


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    raise TypeError(f"{type(value).__name__} has no place in a seed")


def _text(value: str) -> str:
    if _PLAIN.match(value) and value.lower() not in _RESERVED:
        return value
    if value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    """A character of a double-quoted scalar; a lone surrogate, which is no text, becomes U+FFFD."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    point = ord(character)
    if 0xD800 <= point < 0xE000:
        return "\ufffd"
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"

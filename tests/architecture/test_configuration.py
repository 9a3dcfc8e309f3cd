"""What docs/configuration.md and the permission registry say, and what the code asks for, are the same."""

import ast
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.common import permissions
from cloud.serve import listening_socket
from cloud.settings import environment

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs/configuration.md"
APPS = ("cloud", "compute", "storage", "network", "monitoring")
READERS = ("setting", "names", "switch")
OUR_NAME = re.compile(r"MICA_[A-Z0-9_]+")


def nodes(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for file in sorted((CHECKOUT / folder).rglob("*.py")):
            yield from ast.walk(ast.parse(file.read_text(), str(file)))


def text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def argument(node: ast.Call, place: int, name: str) -> ast.AST | None:
    named = [keyword.value for keyword in node.keywords if keyword.arg == name]
    return named[0] if named else node.args[place] if len(node.args) > place else None


# Settings


def asked_for() -> dict[str, set[tuple[str, str | None]]]:
    """Every setting by its `MICA_` name: how it is read, and its default where that is a plain text."""
    found: dict[str, set[tuple[str, str | None]]] = {}
    for node in nodes(*APPS):
        if isinstance(node, ast.Call) and called(node) in READERS and (name := text(argument(node, 0, "name"))):
            default = argument(node, 1, "default")
            said = "" if default is None else text(default)
            found.setdefault(f"MICA_{name.upper()}", set()).add((called(node), said))
    return found


def taken_from_the_environment() -> set[str]:
    """Names that code reads itself: `….get("MICA_X")`, `…["MICA_X"]`, `getenv("MICA_X")`."""
    found: set[str | None] = set()
    for node in nodes(*APPS, "launcher"):
        if isinstance(node, ast.Call) and called(node) in ("get", "getenv", "pop"):
            found.add(text(argument(node, 0, "key")))
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            found.add(text(node.slice))
    return {name for name in found if name and OUR_NAME.fullmatch(name)}


def rows() -> dict[str, str]:
    """The tables of the page: name → default, as written there."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `MICA_"):
            names, default, _meaning = (cell.strip() for cell in line.strip("|").split("|", 2))
            for name in OUR_NAME.findall(names):
                assert name not in found, f"{name} has two rows"
                found[name] = default.strip("`")
    return found


def test_every_setting_has_its_row_and_every_row_its_reader() -> None:
    read = set(asked_for()) | taken_from_the_environment()
    assert {"MICA_DATABASE_URL", "MICA_BIND", "MICA_CONFIG", "MICA_PORT"} <= read
    documented = set(rows())
    assert read - documented == set(), "not in docs/configuration.md"
    assert documented - read == set(), "read by nobody"


def test_control_reads_its_settings_in_one_place() -> None:
    """What is read elsewhere is not found in mica.toml. The file's own name is the one exception."""
    apart = {
        text(argument(node, 0, "key"))
        for node in nodes(*APPS)
        if isinstance(node, ast.Call) and called(node) in ("get", "getenv")
    } | {text(node.slice) for node in nodes(*APPS) if isinstance(node, ast.Subscript)}
    assert {name for name in apart if name and OUR_NAME.fullmatch(name)} == {"MICA_CONFIG"}


def test_defaults_are_as_documented() -> None:
    said = rows()
    for name, ways in asked_for().items():
        for how, default in ways:
            if how == "switch":
                assert said[name] in ("on", "off"), name
            elif default is not None:
                assert said[name] in (default, "off"), name


def test_the_web_process_reads_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mica.toml"
    file.write_text('bind = "127.0.0.2:0"\n')
    monkeypatch.setenv("MICA_CONFIG", str(file))
    monkeypatch.delenv("MICA_BIND", raising=False)
    environment._file.cache_clear()
    try:
        with listening_socket() as bound:
            assert bound.getsockname()[0] == "127.0.0.2"
            assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    finally:
        environment._file.cache_clear()


# Permissions


def required() -> set[str]:
    """Names that code requires: written in `actor.require`, or handed to a function's `permission`, which does."""
    takers = {"require": 0}
    for node in nodes(*APPS):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            if "permission" in names:
                takers[node.name] = names.index("permission")
    found = {
        text(argument(node, takers[called(node)], "permission"))
        for node in nodes(*APPS)
        if isinstance(node, ast.Call) and called(node) in takers
    }
    return {name for name in found if name and name != "*"}


def test_what_services_require_is_declared() -> None:
    names = required()
    # Written out, handed to a function, handed to a decorator.
    assert {"user.create", "zone.update", "instance.start"} <= names
    assert names - set(permissions.declared()) == set()

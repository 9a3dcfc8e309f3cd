"""Builds the agent as one file: a zipapp of its own packages and of its pure-Python dependencies.

    python -m cloud.agent.bundle OUT

Of our packages it takes what `cloud.agent.main` imports, directly or not, and the agent and driver rooms of the apps
whose handlers it lists; of the venv, the closure of what these import. What is compiled comes from the machine's
distribution. Sources go in beside their byte code, so that nothing is compiled at start, and another Python release
still runs it. The same input gives the same file.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cloud.agent.main import HANDLERS
from cloud.agent.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
ENTRY = "cloud.agent.main"
DISTRIBUTIONS = ("celery", "redis", "packaging", "pyroute2")
# Optional, compiled, or for a terminal only: the machine's own or none.
FROM_THE_MACHINE = {"libvirt", "libvirt_qemu", "psutil", "cryptography", "nftables", "rados", "rbd"}
# Celery's command line asks for these; the agent has its own.
FOR_TERMINALS = {"click-didyoumean", "click-plugins", "click-repl", "prompt-toolkit"}
FORBIDDEN = {"django", "rest_framework", "channels", "psycopg", "paramiko", "httpx"}
LEFT_OUT_FOLDERS = {"__pycache__", "tests", "test"}
COMPILED = (".so", ".pyd", ".c", ".pyx", ".pxd", ".h")
STAMP = (1980, 1, 1, 0, 0, 0)
MAIN = f"""import sys

from {ENTRY} import main

sys.exit(main())
"""


class BundleError(Exception):
    """The agent imports what it must not, or what nobody brings; the text says who and what."""


def build(out: Path) -> str:
    """Write the executable zipapp `out`, whole or not at all, and return its version. Raises BundleError."""
    if absent := [name for name in HANDLERS if _own_path(name) is None]:
        raise BundleError(f"there is no module {', '.join(absent)}, which cloud.agent.main lists")
    content = _content()
    number = _build_number(content)
    content["mica_agent_build.py"] = f'"""Written by cloud.agent.bundle."""\n\nBUILD = "{number}"\n'.encode()
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as file:
        file.write(b"#!/usr/bin/python3 -I\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, data in sorted(_with_byte_code(content).items()):
                entry = zipfile.ZipInfo(name, STAMP)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, data)
    partial.chmod(0o755)
    partial.replace(out)
    return f"{VERSION}+{number}"


def release() -> str:
    """The version that `build` would give, without building: less than a second. Raises BundleError."""
    return f"{VERSION}+{_build_number(_content())}"


def _content() -> dict[str, bytes]:
    return {**own_files(), **dependency_files(), "__main__.py": MAIN.encode()}


def _build_number(content: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(content.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:12]


def own_files() -> dict[str, bytes]:
    """Our own modules on the agent's path, and the data files beside them, by their names in the archive."""
    wanted = [ENTRY, *_rooms()]
    found: dict[str, Path] = {}
    outside: dict[str, str] = {}
    while wanted:
        module = wanted.pop()
        path = _own_path(module)
        if path is None or module in found:
            continue
        found[module] = path
        parents = module.split(".")
        wanted += [".".join(parents[:n]) for n in range(1, len(parents))]
        for name in _imports(module, path):
            if _is_own(name):
                wanted.append(name if _own_path(name) else name.rpartition(".")[0])
            else:
                outside.setdefault(name.partition(".")[0], module)
    _check(outside)
    files = {str(path.relative_to(ROOT)): path.read_bytes() for path in found.values()}
    for path in {p.parent for m, p in found.items() if {"agent", "drivers"} & set(m.split("."))}:
        for data in path.rglob("*"):
            if data.is_file() and data.suffix not in (".py", ".pyc", ".pyi"):
                files[str(data.relative_to(ROOT))] = data.read_bytes()
    return files


def dependency_files() -> dict[str, bytes]:
    """The pure-Python files of the distributions the agent needs, with their licences and metadata."""
    files: dict[str, bytes] = {}
    for name in sorted(distributions()):
        for file in importlib.metadata.distribution(name).files or ():
            if _is_wanted(PurePosixPath(file)):
                files[str(file)] = Path(str(file.locate())).read_bytes()
    return files


def distributions() -> set[str]:
    """Canonical names of the agent's dependencies and all they require; those of the machine itself are left out."""
    wanted, found = list(DISTRIBUTIONS), set()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found or name in FROM_THE_MACHINE | FOR_TERMINALS:
            continue
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError as error:
            raise BundleError(f"the agent needs {name}, which is not installed here: run ./mica up") from error
        found.add(str(name))
        for requirement in map(Requirement, required):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def _rooms() -> Iterator[str]:
    """Every module in the agent rooms of `HANDLERS`, and in the driver rooms whose registry chooses drivers by name."""
    for handler in HANDLERS:
        agent_room = ROOT.joinpath(*handler.split(".")).parent
        driver_room = agent_room.with_name("drivers")
        for room in (agent_room, driver_room) if (driver_room / "registry.py").exists() else (agent_room,):
            for path in room.rglob("*.py"):
                parts = list(path.relative_to(ROOT).with_suffix("").parts)
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_own(module: str) -> bool:
    top = module.partition(".")[0]
    return (ROOT / top / "__init__.py").exists()


def _own_path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


def _imports(module: str, path: Path) -> Iterator[str]:
    """What a module imports anywhere in it, except under `if TYPE_CHECKING`."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    waiting: list[ast.AST] = [ast.parse(path.read_bytes(), filename=str(path))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
                base = f"{above}.{base}".rstrip(".")
            yield base
            if _is_own(base):
                yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)


def _check(outside: dict[str, str]) -> None:
    """`outside` are the top-level packages that are not ours, and who imports each."""
    brought = _top_level_names()
    for package, importer in sorted(outside.items()):
        if package in FORBIDDEN:
            raise BundleError(f"{importer} imports {package}, which is not for agents")
        if package in sys.stdlib_module_names or package in FROM_THE_MACHINE or package in brought:
            continue
        if package != "mica_agent_build":
            raise BundleError(f"{importer} imports {package}, which neither the bundle nor the machine brings")


def _top_level_names() -> set[str]:
    owners = importlib.metadata.packages_distributions()
    taken = distributions()
    return {name for name, by in owners.items() if taken & {str(canonicalize_name(n)) for n in by}}


def _is_wanted(file: PurePosixPath) -> bool:
    if file.is_absolute() or ".." in file.parts or LEFT_OUT_FOLDERS & set(file.parts[:-1]):
        return False
    if file.parts[0].endswith(".dist-info"):
        return file.name in ("METADATA", "entry_points.txt") or "licen" in str(file).lower() or file.name == "COPYING"
    return file.suffix not in (".pyc", ".pyi", ".pth") and not file.name.endswith(COMPILED)


def _with_byte_code(content: dict[str, bytes]) -> dict[str, bytes]:
    """The content with a `.pyc` beside each `.py`: unchecked hash byte code, which names neither time nor place."""
    made = dict(content)
    for name, source in content.items():
        if not name.endswith(".py"):
            continue
        try:
            code = compile(source, name, "exec", dont_inherit=True)
        except SyntaxError:
            continue
        data = importlib._bootstrap_external._code_to_hash_pyc(  # type: ignore[attr-defined]
            code, importlib.util.source_hash(source), checked=False
        )
        made[name + "c"] = bytes(data)
    return made


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cloud.agent.bundle OUT")
    try:
        print(build(Path(sys.argv[1])))
    except BundleError as error:
        sys.exit(f"bundle: {error}")

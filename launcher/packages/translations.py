"""Compiled message catalogues (*.mo) beside their sources (*.po)."""

from __future__ import annotations

from pathlib import Path

from launcher.instance import Instance
from launcher.process import run


def compile_all(instance: Instance) -> str:
    """Compile each catalogue that changed since; says how many. Raises Refusal when msgfmt finds one wrong."""
    changed = 0
    for source in catalogues(instance):
        compiled = source.with_suffix(".mo")
        if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
            run(["msgfmt", "--check-format", "--output-file", compiled, source], what=f"Compiling {source}")
            changed += 1
    return f"{changed} compiled" if changed else "up to date"


def catalogues(instance: Instance) -> list[Path]:
    """Every *.po of the checkout's own folders."""
    folders = [
        folder
        for folder in sorted(instance.checkout.iterdir())
        if folder.is_dir() and not folder.name.startswith(".") and folder.name != "node_modules"
    ]
    return [source for folder in folders for source in sorted(folder.rglob("LC_MESSAGES/*.po"))]

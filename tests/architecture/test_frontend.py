"""Front-end packages are served from node_modules, pinned by the lock file."""

import json
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders

from cloud.settings.frontend import FOLDERS, NODE_MODULES

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "file",
    ["htmx/htmx.min.js", "tabler/css/tabler.min.css", "novnc/rfb.js", "xterm/lib/xterm.js", "inter/index.css"],
)
def test_a_file_is_found(file: str) -> None:
    found = finders.find(f"vendor/{file}")
    assert found is not None
    assert Path(found).is_relative_to(NODE_MODULES)


def test_every_package_is_pinned_and_there() -> None:
    wanted = json.loads((CHECKOUT / "package.json").read_text())["dependencies"]
    locked = json.loads((CHECKOUT / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
        assert any(folder == name or folder.startswith(f"{name}/") for folder in FOLDERS.values()), name
    assert [folder for folder in FOLDERS.values() if not (NODE_MODULES / folder).is_dir()] == []

"""Checks that every string the user sees is translated (run by the venv: `python -m launcher.messages`).

xgettext (GNU gettext) collects what the code and the templates mark, msgcmp compares it with each catalogue.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from launcher.instance import Instance
from launcher.packages.translations import catalogues

KEYWORDS = (
    "_",
    "gettext",
    "gettext_lazy",
    "gettext_noop",
    "ngettext:1,2",
    "ngettext_lazy:1,2",
    "pgettext:1c,2",
    "pgettext_lazy:1c,2",
    "npgettext:1c,2,3",
    "npgettext_lazy:1c,2,3",
)
FOLDERS = ("cloud", "compute", "storage", "network", "backup", "monitoring", "billing")


def main() -> int:
    """Print what is missing; 1 if anything is."""
    checkout = Path(__file__).resolve().parent.parent
    sources = [file for folder in FOLDERS for file in sorted((checkout / folder).rglob("*.py"))]
    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "all.pot"
        keywords = [f"--keyword={keyword}" for keyword in KEYWORDS]
        subprocess.run(
            [
                "xgettext",
                "--language=Python",
                "--from-code=UTF-8",
                "--keyword",
                *keywords,
                "--output",
                template,
                "--force-po",
                *sources,
                *_templates(checkout, Path(scratch)),
            ],
            check=True,
        )
        has_messages = template.read_text().count("\nmsgid ") > 1
        found = catalogues(Instance.of_checkout(checkout))
        if has_messages and not found:
            print("There is no catalogue: cloud/locale/zh_Hans/LC_MESSAGES/django.po")
            return 1
        failed = [file for file in found if subprocess.run(["msgcmp", file, template], check=False).returncode]
    return 1 if failed else 0


def _templates(checkout: Path, scratch: Path) -> Iterator[Path]:
    """Django templates, the project's own and each app's, as Python that xgettext can read."""
    from django.conf import settings
    from django.utils.translation.template import templatize

    if not settings.configured:
        settings.configure()
    places = [checkout / "templates", *(checkout / folder for folder in FOLDERS)]
    for number, file in enumerate(sorted(file for place in places for file in place.rglob("*.html"))):
        copy = scratch / f"{number}-{file.name}.py"
        copy.write_text(templatize(file.read_text(), origin=str(file)))
        yield copy


if __name__ == "__main__":
    sys.exit(main())

"""Checks that every string the user sees is translated (run by the venv: `python -m launcher.messages`).

xgettext (GNU gettext) collects what the code and the templates mark, msgmerge lays it over each catalogue.
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
    """Print each text that has no translation, or a doubtful one, with its place in the code; 1 if there are any."""
    checkout = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "all.pot"
        _collect(checkout, template)
        has_messages = template.read_text().count("\nmsgid ") > 1
        found = catalogues(Instance.of_checkout(checkout))
        if has_messages and not found:
            print("There is no catalogue: cloud/locale/zh_Hans/LC_MESSAGES/django.po")
            return 1
        lacking = {file: _lacking(file, template) for file in found}
    for file, entries in lacking.items():
        if entries:
            print(f"{file.relative_to(checkout)} has no translation of:\n\n{entries}")
    return 1 if any(lacking.values()) else 0


def _collect(checkout: Path, template: Path) -> None:
    sources = [file.relative_to(checkout) for folder in FOLDERS for file in sorted((checkout / folder).rglob("*.py"))]
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
            *_templates(checkout, template.parent),
        ],
        cwd=checkout,
        check=True,
    )


def _lacking(catalogue: Path, template: Path) -> str:
    """The entries of the template that the catalogue does not translate; raises when it is no catalogue."""
    merged = template.with_name("merged.po")
    merging: list[str | Path] = [
        "msgmerge",
        "--quiet",
        "--no-fuzzy-matching",
        f"--output-file={merged}",
        catalogue,
        template,
    ]
    subprocess.run(merging, check=True)
    entries = []
    for kind in ("--untranslated", "--only-fuzzy"):
        choosing: list[str | Path] = ["msgattrib", kind, "--no-obsolete", merged]
        chosen = subprocess.run(choosing, check=True, capture_output=True, encoding="UTF-8")
        entries.append(chosen.stdout.partition("\n\n")[2])  # the first entry is the header
    return "\n".join(filter(None, entries))


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

"""Entry of `./mica` and of `python3 -m launcher`."""

import sys
from pathlib import Path

checkout = str(Path(__file__).resolve().parent.parent)
if sys.path[0] != checkout:
    sys.path[0] = checkout  # run by path, Python would put this folder first and hide the package

from launcher.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

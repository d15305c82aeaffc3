"""Make the manual pages: `build.py DIRECTORY`.

A page is `NAME.SECTION.mdoc` here. Text shared by several pages is in a file that they
include; version and date come from pyproject.toml and CHANGELOG.md.
"""

from __future__ import annotations

import re
import sys
import tomllib
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
INCLUDE = re.compile(r"^@include (\S+)@\n", re.MULTILINE)
RELEASE = re.compile(r"^## \S+ \((\d{4}-\d\d-\d\d)\)$", re.MULTILINE)


def page(source: Path) -> str:
    """The text of the page at `source`, complete."""
    text = INCLUDE.sub(lambda found: (HERE / found[1]).read_text(), source.read_text())
    return text.replace("@VERSION@", _version()).replace("@DATE@", _date())


def _version() -> str:
    version: str = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    return version


def _date() -> str:
    found = RELEASE.search((PROJECT / "CHANGELOG.md").read_text())
    if found is None:
        raise SystemExit("CHANGELOG.md names no release with its date")
    released = date.fromisoformat(found[1])
    return f"{released:%B} {released.day}, {released.year}"


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for source in HERE.glob("*.[1-9].mdoc"):
        (directory / source.stem).write_text(page(source))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The commands that README.md shows, by how they are to be run."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(?:^<!-- run: (.+?) -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, str]:
    """Each block of commands by the word in the comment above it; `""` for one without."""
    return {match[1] or "": match[2] for match in _BLOCK.finditer(README.read_text())}

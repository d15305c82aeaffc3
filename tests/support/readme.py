"""The shell commands in README.md, grouped by the comment that says how to run them."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(?:^<!-- run: (.+?) -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, str]:
    """The blocks of commands, by the word in the comment above each; `""` for those without."""
    return {match[1] or "": match[2] for match in _BLOCK.finditer(README.read_text())}

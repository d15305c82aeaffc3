"""The daemon's memory.db, written without any code of the project."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path


def database(texts: Mapping[str, str], kind: int = 1) -> bytes:
    """A memory.db with these archives."""
    parts = [b"CRMEM\0", struct.pack("<IHI", 1, 0, 0), struct.pack("<QI", 9, len(texts))]
    for number, (name, text) in enumerate(texts.items(), 1):
        parts += [struct.pack("<QQI", number, 1777334400, kind), _string(name), _string(text)]
        parts += [struct.pack("<I", 1), _string(f"alias of {name}")]
    return b"".join(parts)


def replace(path: Path, data: bytes) -> None:
    """Replace a file as the daemon does: write a temporary and rename it over."""
    aside = path.with_name(f"{path.name}.new")
    aside.write_bytes(data)
    os.rename(aside, path)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data

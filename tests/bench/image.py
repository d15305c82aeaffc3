"""A fresh file system to measure on.

On a used one, ext4's allocator makes the same append cost one to four times as much, depending on
where its directory lies. So each measurement gets its own ext4 in a loop-mounted image where the
process may mount one; elsewhere it runs in a plain directory, and the table says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

IMAGE_BYTES: Final = 12 << 30
"""The size of a sparse file: unwritten blocks take no space."""
INODES: Final = 3_000_000


def can_mount() -> bool:
    """Whether images can be loop-mounted here."""
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control")


@contextmanager
def fresh_filesystem(place: Path, *options: str) -> Iterator[Path]:
    """A directory on a fresh ext4, mounted with `options`; `place` itself if it cannot be mounted."""
    image, root = place / "image", place / "fs"
    root.mkdir(parents=True)
    if not can_mount():
        print(f"no fresh file system here: measured in {place}", file=sys.stderr)
        yield root
        return
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # Lazy initialisation would go on in the background during the measurement.
    lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    make = ["mkfs.ext4", "-q", "-F", "-E", lazy, "-N", str(INODES), str(image)]
    subprocess.run(make, check=True)
    subprocess.run(["mount", "-o", ",".join(("loop", *options)), str(image), str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)
        image.unlink()

"""Searching a whole store for text that is not in it, against `grep -r`.

Warm, the kernel has the store in memory; cold, its caches were dropped just before, which only root
can do.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from fusefs.exits import Exit
from tests.bench import data
from tests.bench.rows import Row, compared
from tests.bench.timing import Measure, interleaved, shell, timed
from tests.support.commands import STEPFS, environment

PATTERN: Final = "no such words"
GREP: Final = f'grep -r "{PATTERN}" "$1" || [ $? -eq 1 ]'
CACHES: Final = Path("/proc/sys/vm/drop_caches")


def search(place: Path, quick: bool) -> Iterator[Row]:
    """10,000 sessions of 20 steps."""
    count = 1000 if quick else 10_000
    store = data.sessions(place, count, 20).path
    ours, grep = timed(partial(_stepfs_search, store)), timed(partial(shell, GREP, store))
    ours()
    name = f"stepfs search over {count:,} sessions"
    warm, warm_grep = interleaved(3 if quick else 7, ours, grep)
    yield compared(f"{name}, warm / grep -r", warm, warm_grep, 0.5)
    if os.access(CACHES, os.W_OK):
        cold, cold_grep = interleaved(1 if quick else 3, _cold(ours), _cold(grep))
        yield compared(f"{name}, cold / grep -r", cold, cold_grep, 0.5)


def _stepfs_search(store: Path) -> None:
    command = [*STEPFS, "search", PATTERN, str(store)]
    as_installed = environment(PYTHONDONTWRITEBYTECODE="")
    done = subprocess.run(command, env=as_installed, capture_output=True, check=False)
    assert done.returncode == Exit.NOTHING_FOUND, done


def _cold(measure: Measure) -> Measure:
    def measured() -> float:
        os.sync()
        CACHES.write_text("3")
        return measure()

    return measured

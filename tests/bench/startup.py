"""How long a mount takes to become live, against importing its libraries."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.rows import Row
from tests.bench.timing import interleaved, timed
from tests.support.commands import PROJECT, environment
from tests.support.mounted import mounted
from tests.support.stores import StoreOnDisk

BESIDE_SECONDS = 0.12
"""The time that a mount may take beyond 1.2 times the imports."""


def startup(place: Path, quick: bool) -> Iterator[Row]:
    """From the start of the process to the first answer."""
    store = StoreOnDisk(place / "store")
    store.session("crab_tg-42_1")

    def start() -> float:
        began = time.perf_counter()
        with mounted(store.path, place):
            return time.perf_counter() - began

    ours, imports = interleaved(5 if quick else 15, start, timed(_import))
    goal = (1.2 * median(imports) + BESIDE_SECONDS) * 1e3
    title = "start until live / importing pyfuse3, trio, orjson"
    yield Row(title, median(ours) * 1e3, median(imports) * 1e3, round(goal), of_ratio=False)


_import = partial(
    subprocess.run,
    [sys.executable, "-c", "import pyfuse3, trio, orjson"],
    cwd=PROJECT,
    env=environment(),
    check=True,
)

"""`python -m tests.bench [--only NAME] [--quick] [--json FILE] [--directory DIR]`

Measures on a fresh file system and prints a table: each figure beside a baseline that does the same
without stepfs, in the same run, alternating. Figures and ratios are medians, unless p99 is stated.
Load from other programs affects both; `at best` compares only the fastest rounds.

The *floor* is a pyfuse3 server that does nothing but serve the same bytes (tests/bench/floor.py); the
*bare loop* opens by descriptor, reads, closes and parses, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.bench import (
    catalogue,
    listing,
    noticing,
    past,
    reading,
    resources,
    searching,
    startup,
    writing,
)
from tests.bench.image import fresh_filesystem
from tests.bench.rows import Row, surroundings, table
from tests.support.mounted import time_limit

SECONDS: Final = 1800
MEASUREMENTS: Final[dict[str, Callable[[Path, bool], Iterator[Row]]]] = {
    "looks": listing.looks,
    "many": listing.many,
    "first": reading.first,
    "long": reading.long,
    "million": reading.million,
    "bulk": writing.bulk,
    "beside": writing.beside,
    "one": writing.one,
    "catalogue": catalogue.catalogue,
    "changes": catalogue.changes,
    "search": searching.search,
    "startup": startup.startup,
    "warm": reading.warm,
    "length": writing.length,
    "noticing": noticing.noticing,
    "undisturbed": noticing.undisturbed,
    "histories": resources.memory_of_histories,
    "idle": resources.idle,
    "past": past.past,
}


def main() -> int:
    """Run the benchmark; return 0 if every limit is kept, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="measure this alone")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller stores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--directory", default="/var/tmp", help="where to make the stores")
    chosen = parser.parse_args()
    before, rows = surroundings(), list(_rows(chosen.only, chosen.quick, chosen.directory))
    print("\n" + table(rows))
    if chosen.json is not None:
        told = {"before": before, "after": surroundings(), "rows": [row.as_json() for row in rows]}
        chosen.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    return 1 if any(row.reached is False for row in rows) else 0


def _rows(only: list[str] | None, quick: bool, directory: str) -> Iterator[Row]:
    """Each measurement on its own fresh file system: on a used one the same work costs more."""
    run = Path(tempfile.mkdtemp(prefix="stepfs-bench-", dir=directory))
    try:
        for name in only or MEASUREMENTS:
            with fresh_filesystem(run / name) as place, time_limit(place, SECONDS):
                for row in MEASUREMENTS[name](place, quick):
                    print(" | ".join(filter(None, row.cells())), flush=True)
                    yield row
    finally:
        shutil.rmtree(run)


if __name__ == "__main__":
    sys.exit(main())

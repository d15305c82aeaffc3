"""`python -m tests.bench [--only NAME] [--quick] [--json FILE] [--directory DIR]`

Measures on a store made for it, which is removed at the end, and prints a table: each figure beside
what does the same without the mount, in the same run, done in turn. Medians, but where it says p99.
What another program does on the machine shows in both; `at best` compares the fastest rounds alone.
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

from tests.bench import listing, noticing, reading, resources, writing
from tests.bench.rows import Row, surroundings, table
from tests.support.mounted import time_limit

SECONDS: Final = 1800
MEASUREMENTS: Final[dict[str, Callable[[Path, bool], Iterator[Row]]]] = {
    "warm": reading.warm,
    "first": reading.first,
    "long": reading.long,
    "bulk": writing.bulk,
    "one": writing.one,
    "length": writing.length,
    "noticing": noticing.noticing,
    "ls": listing.ls,
    "catalogue": listing.catalogue,
    "histories": resources.memory_of_histories,
    "sessions": resources.memory_of_sessions,
    "undisturbed": noticing.undisturbed,
    "idle": resources.idle,
}


def main() -> int:
    """0 if every limit is kept, 1 if not."""
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
    """What is made for one measurement stays to the end: ext4 is slow to make files for seconds after
    many were removed."""
    run = Path(tempfile.mkdtemp(prefix="stepfs-bench-", dir=directory))
    try:
        for name in only or MEASUREMENTS:
            place = run / name
            place.mkdir()
            with time_limit(place, SECONDS):
                for row in MEASUREMENTS[name](place, quick):
                    print(" | ".join(filter(None, row.cells())), flush=True)
                    yield row
    finally:
        shutil.rmtree(run)


if __name__ == "__main__":
    sys.exit(main())

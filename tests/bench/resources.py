"""Memory and CPU time of the server."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import data
from tests.bench.rows import Row
from tests.bench.timing import read
from tests.support.mounted import Mount, mounted
from tests.support.stores import StoreOnDisk

CACHE_MIB = 64
"""The cache's default size."""
IDLE_SECONDS = 10


def memory_of_histories(place: Path, quick: bool) -> Iterator[Row]:
    """Resident memory after reading many histories, much more than the cache holds."""
    store = StoreOnDisk(place / "store")
    mib = 256 if quick else 2048
    slugs = [f"crab_tg-42_{number}" for number in range(1, mib // 32 + 1)]
    for slug in slugs:
        data.names(data.session(store, slug), 1, 8192, data.entry_of(4096))
    with mounted(store.path, place) as mount:
        before = resident(mount)
        assert sum(read(mount.path / slug / "history.jsonl") for slug in slugs) == mib << 20
        title = f"memory after reading {mib:,} MiB of histories / before"
        yield _memory(title, resident(mount), before, CACHE_MIB + 100)


def idle(place: Path, quick: bool) -> Iterator[Row]:
    """CPU time of an idle mount, after some use."""
    store = StoreOnDisk(place / "store")
    session = store.session("crab_tg-42_1", data.LINE)
    with mounted(store.path, place) as mount:
        (mount.path / session.slug / "append").write_bytes(data.LINE + b"\n")
        read(mount.path / session.slug / "history.jsonl")
        time.sleep(2)
        before = processor_seconds(mount)
        time.sleep(2 if quick else IDLE_SECONDS)
        used = (processor_seconds(mount) - before) * 1e3
        yield Row(f"processor time in {IDLE_SECONDS} idle seconds", used, None, 0, of_ratio=False)


def resident(mount: Mount) -> float:
    """Resident memory of the server in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", _proc(mount, "status"))
    assert found is not None
    return int(found[1]) / 1024


def processor_seconds(mount: Mount) -> float:
    """The CPU time that the server has used, to the precision of the kernel's clock ticks."""
    fields = _proc(mount, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(title: str, after: float, before: float, limit: float) -> Row:
    return Row(title, after, before, limit, unit="MiB", of_ratio=False)


def _proc(mount: Mount, name: str) -> str:
    assert mount.server is not None
    return Path(f"/proc/{mount.server.pid}/{name}").read_text()

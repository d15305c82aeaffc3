"""Collections scan only new objects, and short-lived objects leave no garbage."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from fusefs.inodes.session_directory import SessionDirectory
from fusefs.session.session import Session
from tests.support.commands import until
from tests.support.drivers import TreeDriver
from tests.support.stores import StoreOnDisk, entry

MAKE = """
import gc
from fusefs.daemon.garbage import collect_in_parts

collect_in_parts()
looked_at, kept = [], []

def count(phase, info):
    if phase == "start" and info["generation"] == 2:
        looked_at.append(len(gc.get_objects()))

gc.callbacks.append(count)

class Cycle:
    freed = 0
    def __init__(self):
        self.me = self
    def __del__(self):
        Cycle.freed += 1

for number in range(300_000):
    kept.append([number])
    if number % 100 == 0:
        Cycle()
print(len(looked_at), max(looked_at), Cycle.freed)
"""


@pytest.mark.guarantee("G19c")
def test_a_collection_scans_what_is_new_since_the_last_one_and_frees_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAKE], check=True, capture_output=True, text=True, timeout=60
    )
    collections, most, freed = map(int, done.stdout.split())
    assert collections > 3
    assert most < 100_000
    assert freed > 2900


@pytest.mark.guarantee("G19c", "G23a")
def test_what_the_kernel_has_forgotten_is_freed_without_a_collection(store: StoreOnDisk) -> None:
    sessions = [store.session(f"crab_tg-1_{n}", entry("x")) for n in range(100)]
    slugs = [session.slug for session in sessions]
    driver = TreeDriver(store)
    gc.collect()
    gc.disable()
    try:
        assert set(slugs) < set(driver.listdir(""))
        for slug in slugs:
            for name in driver.listdir(slug):
                driver.stat(f"{slug}/{name}")
            assert driver.text(f"{slug}/history.jsonl")
            driver.stat(f"{slug}/log.jsonl")
        for session in sessions:
            driver.append(session, entry("y") + b"\n")
            session.add(entry("z"))  # a daemon counts past it, so it is no longer remembered (G16)
        assert known() > 100
        until(lambda: forgotten(driver))
    finally:
        gc.enable()
        driver.stop()


def forgotten(driver: TreeDriver) -> bool:
    """Whether all sessions are forgotten but the few whose judged steps are kept.

    Sessions whose metas are not written yet are forgotten a moment later.
    """
    driver.forget_everything()
    return known() < 40


def known() -> int:
    """The number of sessions that are still in memory."""
    return sum(isinstance(thing, Session | SessionDirectory) for thing in gc.get_objects())

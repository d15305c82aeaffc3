"""Appending to a session without a mount: judged, claimed, on disk and counted as a mount does it.

If a daemon that counts its steps in memory renames over a step stored here, nobody notices: only a
running mount would (G16).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from storage.capabilities import is_near
from storage.errors import doing, printable
from storage.formats.kinds import Step
from storage.session import meta, meta_update
from storage.session.claims import Claimer
from storage.session.index import scan
from storage.session.steps import Ownership, sync_steps
from storage.store import Store
from storage.times import now

SYNCED_ONE_BY_ONE: Final = 16
"""Above this many steps one syncfs(2) replaces a sync of each."""


def append(store: Store, slug: str, steps: Sequence[Step]) -> list[int]:
    """Store `steps`, which were judged, in their order; their numbers.

    Each is complete before it has its name and replaces nothing (G15); on return all are on disk
    (G17) and counted in the meta (G9). Raises StoreError; what was stored before it stays, counted.
    """
    numbers: list[int] = []
    with store.opened(slug) as directory, doing(f"append to {printable(slug)}"):
        try:
            claim_all(directory, [step.data for step in steps], numbers, sync=True)
        finally:
            entries = sum(step.kind.is_entry for step in steps[: len(numbers)])
            if numbers:
                meta_update.update(directory, meta.count_delta(entries, now()), sync=True)
    return numbers


def claim_all(directory: int, steps: Sequence[bytes], numbers: list[int], *, sync: bool) -> None:
    """Store `steps` in their order, and add the number of each to `numbers` once it is stored.

    With `sync` all are on disk on return. Raises OSError, StoreError; what was stored before stays.
    """
    claimer = Claimer(directory, unnamed=is_near(directory))
    ownership = Ownership.of_session(directory)
    greatest = scan(directory).greatest
    each = sync and len(steps) <= SYNCED_ONE_BY_ONE
    for data in steps:
        greatest = claimer.claim(greatest + 1, data, ownership, sync=each).number
        numbers.append(greatest)
    if sync:
        sync_steps(directory, (), whole=not each)

"""Appending to a session without a mount: judged, claimed, on disk and counted as a mount does it.

What a daemon that counts its steps in memory renames over a step stored here nobody notices: only a
running mount does (G16).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from storage.capabilities import is_near
from storage.errors import from_os_error, printable
from storage.formats.kinds import Kind, Step
from storage.session import meta
from storage.session.index import scan
from storage.session.steps import Claimer, Ownership, sync_steps
from storage.store import Store, now

SYNCED_ONE_BY_ONE: Final = 16
"""More steps than these are synced with one syncfs."""


def append(store: Store, slug: str, steps: Sequence[Step]) -> list[int]:
    """Store `steps`, which were judged, in their order; their numbers.

    Each is complete before it has its name and replaces nothing (G15); on return all are on disk
    (G17) and counted in the meta (G9). Raises StoreError; what was stored before it stays, counted.
    """
    directory = store.open_session(slug)
    numbers: list[int] = []
    try:
        try:
            _claim(directory, steps, numbers)
        finally:
            entries = sum(step.kind is Kind.ENTRY for step in steps[: len(numbers)])
            if numbers:
                meta.update(directory, meta.count_delta(entries, now()), sync=True)
    except OSError as error:
        raise from_os_error(error, f"append to {printable(slug)}") from error
    finally:
        os.close(directory)
    return numbers


def _claim(directory: int, steps: Sequence[Step], numbers: list[int]) -> None:
    claimer = Claimer(directory, unnamed=is_near(directory))
    ownership = Ownership.of_session(directory)
    following = scan(directory).greatest + 1
    many = len(steps) > SYNCED_ONE_BY_ONE
    for step in steps:
        claimed = claimer.claim(following, step.data, ownership, sync=not many)
        numbers.append(claimed.number)
        following = claimed.number + 1
    sync_steps(directory, (), whole=many)

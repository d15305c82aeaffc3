"""Garbage collection that never stops the mount for long (G19).

A collection of the oldest generation visits every object: a million of them when the kernel knows some
ten thousand sessions, which stops everything for a second. What a mount keeps for long is in no
reference cycle, so reference counting frees it; cycles come from exceptions, and are young. So objects
that survive a collection of the oldest generation are frozen, and the next one only visits newer ones.
"""

from __future__ import annotations

import gc
from typing import Final, Literal

YOUNG_OBJECTS: Final = 700
MIDDLE_AFTER: Final = 10
OLDEST_AFTER: Final = 3
"""Collections of the middle generation per one of the oldest, which thus visits some 20,000 objects."""
_OLDEST: Final = 2


def collect_in_parts() -> None:
    """From now on, make every collection visit a bounded number of objects."""
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_AFTER, OLDEST_AFTER)
    gc.collect()
    gc.freeze()
    if _keep_survivors not in gc.callbacks:
        gc.callbacks.append(_keep_survivors)


def _keep_survivors(phase: Literal["start", "stop"], info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == _OLDEST:
        gc.freeze()

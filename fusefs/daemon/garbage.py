"""Collections of garbage that never stop the mount for long (G19).

A collection of the oldest generation looks at every object there is, a million of them with some ten
thousand sessions that the kernel knows, and stops everybody for a second. What a mount keeps for long
is freed as soon as nobody refers to it, without any cycle that would need a collection; cycles are
what failures leave, and these are young. So whatever has outlived a collection of the oldest generation
is looked at no more, and each such collection finds only what came since the one before.
"""

from __future__ import annotations

import gc
from typing import Final, Literal

YOUNG_OBJECTS: Final = 700
MIDDLE_AFTER: Final = 10
OLDEST_AFTER: Final = 3
"""Collections of the middle generation per one of the oldest, of some 20,000 objects."""
_OLDEST: Final = 2


def collect_in_parts() -> None:
    """Make every collection visit a bounded number of objects, for the life of the process."""
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_AFTER, OLDEST_AFTER)
    gc.collect()
    gc.freeze()
    if _keep_survivors not in gc.callbacks:
        gc.callbacks.append(_keep_survivors)


def _keep_survivors(phase: Literal["start", "stop"], info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == _OLDEST:
        gc.freeze()

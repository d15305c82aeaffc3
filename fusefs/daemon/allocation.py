"""Large blocks of memory go back to the system as soon as they are freed (G23)."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

LARGE_BYTES: Final = 1 << 20
TRIM_BYTES: Final = 8 << 20
"""Free memory at the end of the heap beyond which it is returned."""
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3


def return_large_blocks() -> None:
    """From now on, map every large block by itself, so that freeing it unmaps it.

    After the first large block was freed, glibc would take others of that size from its heaps, one per
    thread, where whatever is allocated behind a freed block keeps it: after some lines of 15 MiB the
    server would hold two hundred MiB that nobody uses. Does nothing with another C library.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, TRIM_BYTES)

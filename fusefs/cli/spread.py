"""Work on many sessions, done by as many processes as may run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

CHUNK_SESSIONS: Final = 128
"""Sessions handed to a process at a time."""
FEW_SESSIONS: Final = 256
"""Up to this many sessions no other process is started."""

Result = TypeVar("Result")


def spread(work: Callable[[Sequence[str]], Result], slugs: Sequence[str]) -> Iterator[Result]:
    """What `work` makes of some sessions at a time, in their order, as it comes.

    `work` is a function of a module or a `partial` of one, which another process can be told to call.
    """
    if len(slugs) <= FEW_SESSIONS:
        for slug in slugs:
            yield work([slug])
        return
    # Loading these takes as long as searching hundreds of sessions.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    chunks = [slugs[at : at + CHUNK_SESSIONS] for at in range(0, len(slugs), CHUNK_SESSIONS)]
    processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes, get_context("fork"), initializer=_leave_signals) as pool:
        yield from pool.map(work, chunks)


def _leave_signals() -> None:
    """Ctrl-C is for the process that was asked: it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

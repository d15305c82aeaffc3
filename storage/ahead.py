"""Many parallel calls to a far store: each waits for the network and hardly loads this machine.

The threads are daemons, so that a store that does not answer cannot keep a process from exiting.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

THREADS: Final = 96
"""Threads per process, shared by all readers."""
WINDOW: Final = 192
"""Calls of one reader that are in flight or whose results were not taken yet."""

T = TypeVar("T")
R = TypeVar("R")


class Outcome(Generic[R]):
    """What a call returned or raised, once it has."""

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._done = threading.Event()
        self._value: R
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done.is_set()

    @property
    def succeeded(self) -> bool:
        """Whether the call has ended without an error."""
        return self.done and self._error is None

    def run(self) -> None:
        """Make the call, in whatever thread; nothing that it needs is held afterwards."""
        call = self._call
        del self._call
        try:
            self._value = call()
        except BaseException as error:
            self._error = error
        self._done.set()

    def get(self) -> R:
        """Wait for the call; returns or raises what it did."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value


def ahead(
    work: Callable[[T], R], items: Iterable[T], window: int = WINDOW
) -> Iterator[tuple[T, Outcome[R]]]:
    """Call `work` for each item, some ahead of the consumer; yields items and outcomes in order."""
    under_way: deque[tuple[T, Outcome[R]]] = deque()
    for item in items:
        under_way.append((item, _POOL.start(partial(work, item))))
        if len(under_way) >= window:
            yield under_way.popleft()
    yield from under_way


def start(call: Callable[[], R]) -> Outcome[R]:
    """Make a call in another thread."""
    return _POOL.start(call)


class _Pool:
    """A pool of threads, started on demand and kept."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()

    def start(self, call: Callable[[], R]) -> Outcome[R]:
        outcome = Outcome(call)
        self._queue.put(outcome.run)
        with self._lock:
            if self._threads < THREADS:
                self._threads += 1
                threading.Thread(target=self._work, name="ahead", daemon=True).start()
        return outcome

    def _work(self) -> None:
        while True:
            self._queue.get()()


_POOL: Final = _Pool()

"""Invalidates the kernel's caches through pyfuse3."""

from __future__ import annotations

import contextlib
import os
import threading

import pyfuse3
import trio


class KernelCaches:
    """The real kernel's caches.

    Attributes are invalidated at once, which never blocks. Sizes and names are updated from threads,
    since that can wait for a request that only the loop can answer.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], None] = {}
        self._ready = threading.Condition()
        self._ended = False
        self._growing = 0
        self._thread = threading.Thread(target=self._work, name="names", daemon=True)

    def start(self) -> None:
        """Start the thread; call this once the connection to the kernel exists."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Send nothing more. Waits for calls in progress, up to `seconds` each for sizes and names: the
        caller closes the connection next, which no thread may still be using."""
        with self._ready:
            self._ended = True
            self._ready.notify_all()
            self._ready.wait_for(lambda: not self._growing, seconds)
        if self._thread.is_alive():
            self._thread.join(seconds)

    def attributes_changed(self, ino: int) -> None:
        with contextlib.suppress(OSError):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)

    async def grown(self, ino: int, size: int) -> None:
        await trio.to_thread.run_sync(self._grow, ino, size, abandon_on_cancel=True)

    def entry_changed(self, parent: int, name: str) -> None:
        with self._ready:
            self._names[parent, name] = None
            self._ready.notify_all()

    def _grow(self, ino: int, size: int) -> None:
        with self._ready:
            if self._ended:
                return
            self._growing += 1
        try:
            _store_size(ino, size)
        finally:
            with self._ready:
                self._growing -= 1
                self._ready.notify_all()

    def _work(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._names or self._ended)
                if self._ended:
                    return
                parent, name = next(iter(self._names))
                del self._names[parent, name]
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), os.fsencode(name))


def _store_size(ino: int, size: int) -> None:
    """In a thread: both calls wait for pages being read, which the loop has to answer."""
    with contextlib.suppress(OSError):
        # First drop the pages, since the last one is zero-filled beyond the old end. Then storing a
        # byte sets the size, which no answer to a stat reliably does.
        pyfuse3.invalidate_inode(pyfuse3.InodeT(ino))
        pyfuse3.notify_store(pyfuse3.InodeT(ino), size - 1, b"\n")

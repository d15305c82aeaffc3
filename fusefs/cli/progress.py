"""A progress bar for long commands, shown only on a terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TextIO

PATIENCE_SECONDS = 0.5
BETWEEN_SECONDS = 0.1
WIDTH = 40


class Progress:
    """A bar that appears once the work has taken `PATIENCE_SECONDS`, and is erased at the end."""

    def __init__(self, screen: TextIO) -> None:
        self._screen = screen
        self._next = time.monotonic() + PATIENCE_SECONDS if screen.isatty() else float("inf")
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __call__(self, done: int, whole: int) -> None:
        """Report that `done` of `whole` parts are done."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + BETWEEN_SECONDS
        self._drawn = True
        share = min(done / whole, 1.0) if whole else 1.0
        bar = "#" * round(share * WIDTH)
        self._screen.write(f"\r[{bar:<{WIDTH}}] {share:4.0%} {done:,} of {whole:,}\x1b[K")
        self._screen.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn:
            self._screen.write("\r\x1b[K")
            self._screen.flush()

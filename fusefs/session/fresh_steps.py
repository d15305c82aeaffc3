"""Steps that were just stored, kept for the moment until they are shown: nobody reads them again."""

from __future__ import annotations

from typing import Final

from storage.formats.kinds import Step

FRESH_STEPS: Final = 256
FRESH_BYTES: Final = 1 << 18
"""At most so many steps of a session are kept, of so many bytes together."""


class FreshSteps:
    """The last steps of one session, as they were judged when they were written. Loop-owned."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}
        """By their numbers, oldest first."""
        self._bytes = 0

    def add(self, number: int, step: Step) -> None:
        """A step was stored as `number`."""
        self.forget(number)
        if len(step.data) > FRESH_BYTES // 4:
            return
        self.steps[number] = step
        self._bytes += len(step.data)
        while len(self.steps) > FRESH_STEPS or self._bytes > FRESH_BYTES:
            self.forget(next(iter(self.steps)))

    def forget(self, number: int) -> None:
        """Something happened to that step, or it is old."""
        step = self.steps.pop(number, None)
        if step is not None:
            self._bytes -= len(step.data)

    def clear(self) -> None:
        """They were shown, or anything may have happened to them."""
        self.steps.clear()
        self._bytes = 0

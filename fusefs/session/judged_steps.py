"""A cache of recently judged steps, so that a session's other views need not read them again."""

from __future__ import annotations

from typing import Final

from storage.formats.kinds import Step
from storage.session.steps import is_usual

KEPT_STEPS: Final = 256
"""Limit of steps kept per session."""
KEPT_BYTES: Final = 1 << 18
"""Limit of the bytes of all steps kept per session."""


class JudgedSteps:
    """The steps of one session that this mount has stored or read last. Loop-owned.

    A caller that learns of a change to a step must `forget` it. Steps under other names than
    `step_name` gives are not kept, so that a number has one name here.
    """

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        """Steps by name, oldest first."""
        self._bytes = 0
        """The bytes of all of them."""

    def add(self, name: str, step: Step) -> None:
        """Keep a step that was judged."""
        self.forget(name)
        if len(step.data) > KEPT_BYTES // 4 or not is_usual(name):
            return
        self.steps[name] = step
        self._bytes += len(step.data)
        while len(self.steps) > KEPT_STEPS or self._bytes > KEPT_BYTES:
            self.forget(next(iter(self.steps)))

    def forget(self, name: str) -> None:
        """Drop a step: it has changed, or is old."""
        step = self.steps.pop(name, None)
        if step is not None:
            self._bytes -= len(step.data)

    def clear(self) -> None:
        """Drop all: every view has shown them, or any of them may have changed."""
        self.steps.clear()
        self._bytes = 0

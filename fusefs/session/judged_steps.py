"""Steps that were judged lately, kept so that a session's other views need not read them again."""

from __future__ import annotations

from typing import Final

from storage.formats.kinds import Step
from storage.session.steps import step_name, step_number

KEPT_STEPS: Final = 256
KEPT_BYTES: Final = 1 << 18
"""Steps kept per session at most, and their bytes together."""


class JudgedSteps:
    """The last steps of one session that were stored by this mount or read. Loop-owned.

    Whoever learns that something happened to a step has it forgotten. Names that are not written as
    `step_name` writes them are not kept, so that a number has one name here.
    """

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        """By their names, oldest first."""
        self._bytes = 0

    def add(self, name: str, step: Step) -> None:
        """A step was judged."""
        self.forget(name)
        if len(step.data) > KEPT_BYTES // 4 or name != step_name(step_number(name) or 0):
            return
        self.steps[name] = step
        self._bytes += len(step.data)
        while len(self.steps) > KEPT_STEPS or self._bytes > KEPT_BYTES:
            self.forget(next(iter(self.steps)))

    def forget(self, name: str) -> None:
        """Something happened to that step, or it is old."""
        step = self.steps.pop(name, None)
        if step is not None:
            self._bytes -= len(step.data)

    def clear(self) -> None:
        """All views have shown them, or any of them may have changed."""
        self.steps.clear()
        self._bytes = 0

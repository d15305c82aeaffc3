"""What happens while the passes over steps run that build a view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fusefs.session import building
from storage.session import replay
from tests.support.stores import SessionOnDisk, compaction, entry


class Meanwhile:
    """Runs something during each pass: after the pass has read, before its result is used."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *does: Callable[[], object],
        direction: str = "forwards",
    ) -> None:
        self.left = list(does)
        self.passes = 0
        self._pass = getattr(replay, direction)
        monkeypatch.setattr(building, direction, self)

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.passes += 1
        found = self._pass(*args, **named)
        if self.left:
            self.left.pop(0)()
        return found


def compacts(disk: SessionOnDisk) -> None:
    """A daemon compacts, and a step changes that is being read, so that everything is checked again."""
    disk.put(3, entry("B"))
    disk.add(compaction("the second"))

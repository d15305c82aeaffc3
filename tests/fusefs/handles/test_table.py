"""The table of handles works like a dictionary, except that no handle is ever reused."""

from __future__ import annotations

import errno

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fusefs.handles.table import HandleTable
from storage.errors import StoreError


class Handles(RuleBasedStateMachine):
    """Opens and closes in any order."""

    opened = Bundle("opened")
    closed = Bundle("closed")

    def __init__(self) -> None:
        super().__init__()
        self.table: HandleTable[str] = HandleTable("file")
        self.model: dict[int, str] = {}
        self.ever: set[int] = set()

    @rule(target=opened, name=st.text(max_size=3))
    def opens(self, name: str) -> int:
        handle = self.table.add(name)
        assert handle not in self.ever
        self.ever.add(handle)
        self.model[handle] = name
        return handle

    @rule(handle=opened)
    def is_asked_for(self, handle: int) -> None:
        assert self.table.get(handle) == self.model[handle]

    @rule(target=closed, handle=consumes(opened))
    def closes(self, handle: int) -> int:
        assert self.table.pop(handle) == self.model.pop(handle)
        return handle

    @rule(handle=closed)
    def is_closed(self, handle: int) -> None:
        assert self.table.pop(handle) is None
        with pytest.raises(StoreError) as refused:
            self.table.get(handle)
        assert (refused.value.errno, refused.value.sentence) == (
            errno.EBADF,
            "the file is not open",
        )

    @invariant()
    def has_what_is_open(self) -> None:
        assert list(self.table) == list(self.model)
        assert len(self.table) == len(self.model)


TestHandles = Handles.TestCase

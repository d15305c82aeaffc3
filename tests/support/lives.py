"""Random histories of whole sessions, and what the reference would load from them.

Documents are judged by `tests.support.oracle`; no code is shared with the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support import oracle
from tests.support.stores import compaction, entry, event

Steps = dict[int, bytes]

BLOCKS = [
    b'{"message":{"role":"user","content":[{"type":"text","text":"which disks are full?"}]}}',
    b'{"message":{"role":"assistant","content":[{"type":"thinking","thinking":"df"},{"type":"text",'
    b'"text":"I look."},{"type":"tool_use","id":"t","name":"bash","input":{"command":"df"}}]}}',
    b'{"agent":"scout","message":{"role":"assistant","content":[{"type":"text","text":"sda1 is."}]}}',
]
"""Entries with content blocks, as the daemon's later versions write them."""
EVENTS = [
    event(),
    b'{"event":"tool_result","call_id":"c","duration_ms":12,"ts":"t"}',
    b'{"event":"user_steered","content":"the words archive_name and \\"compact\\"","ts":"t"}',
]
BROKEN = [
    b"",
    b"{",
    b'{"message":{"role":"us',
    b"[]",
    b'{"archive_name":"no time"}',
    b'{"compact":7}',
    b'{"archive_name":"twice","archive_name":"twice","archived_at":"t"}',
]
COMPACTIONS = [
    compaction("crab-1"),
    compaction("crab-2"),
    b'{"compact":"a summary","title":"t","archived_at":"t"}',
    b' {\n "archived_at": "t", "archive_name": "spaced"\n}\n',
    b'{"\\u0061rchive_name":"escaped","archived_at":"t"}',
    b'{"\\u0063ompact":"escaped"}',
]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A history as the reference loads it."""

    archive: str | None
    entries: list[bytes]


def loaded(steps: Mapping[int, bytes]) -> Loaded:
    """What is loaded from a session with these steps."""
    archive: str | None = None
    entries: list[bytes] = []
    for _, data in sorted(steps.items()):
        match oracle.kind(data):
            case "compaction":
                archive, entries = json.loads(data)["archive_name"], []
            case "legacy compaction":
                archive, entries = None, []
            case "entry":
                entries.append(data)
    return Loaded(archive, entries)


def cut(steps: Mapping[int, bytes], last: int) -> Steps:
    """The steps up to and including a number."""
    return {number: data for number, data in steps.items() if number <= last}


def compactions(steps: Mapping[int, bytes]) -> list[int]:
    """The numbers of the compactions."""
    return [
        number
        for number, data in sorted(steps.items())
        if (oracle.kind(data) or "").endswith("compaction")
    ]


def epochs(steps: Mapping[int, bytes]) -> list[Loaded]:
    """What was loaded just before each compaction, and what is loaded now."""
    return [*(loaded(cut(steps, end - 1)) for end in compactions(steps)), loaded(steps)]


def _documents(number: int) -> st.SearchStrategy[bytes]:
    said = st.sampled_from(("user", "assistant")).map(lambda role: entry(f"step {number}", role))
    return st.one_of(said, said, said, *map(st.sampled_from, (BLOCKS, EVENTS, BROKEN, COMPACTIONS)))


def _with_documents(numbers: Sequence[int]) -> st.SearchStrategy[Steps]:
    return st.fixed_dictionaries({number: _documents(number) for number in numbers})


LIVES: st.SearchStrategy[Steps] = (
    st.lists(st.integers(1, 4), max_size=18)
    .map(lambda gaps: [sum(gaps[: at + 1]) for at in range(len(gaps))])
    .flatmap(_with_documents)
)
"""Steps by number, with gaps: entries of all dialects, events, both compactions, and broken steps."""


def edited(steps: Steps) -> st.SearchStrategy[Steps]:
    """The same session after others removed, replaced or inserted some of its steps."""
    touched = st.lists(st.integers(1, max(steps, default=1) + 3), max_size=6, unique=True)
    contents = touched.flatmap(
        lambda numbers: st.fixed_dictionaries(
            {number: st.none() | _documents(number) for number in numbers}
        )
    )
    return contents.map(
        lambda changes: {
            number: data for number, data in {**steps, **changes}.items() if data is not None
        }
    )

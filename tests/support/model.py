"""What a mount must show for the steps in a store: a small model, without any code of the project.

It understands only the steps that the tests write: those of `tests.support.stores`, and broken ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.support.stores import SessionOnDisk

HISTORY = "history.jsonl"
MESSAGES = "messages.jsonl"
LOG = "log.jsonl"
VIEWS = (HISTORY, MESSAGES, LOG)


def parsed(data: bytes) -> dict[str, Any] | None:
    """The document of a step; None if it is broken."""
    try:
        found = json.loads(data)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    entry = isinstance(found.get("message"), dict)
    return found if entry or "event" in found or "archive_name" in found else None


def shown(steps: Sequence[bytes], view: str) -> bytes:
    """The text of a view of a session with these steps."""
    documents = [(data.strip(), found) for data in steps if (found := parsed(data)) is not None]
    if view == LOG:
        return b"".join(data + b"\n" for data, _ in documents)
    archive = None
    for at in range(len(documents) - 1, -1, -1):
        archive = documents[at][1].get("archive_name")
        if archive is not None:
            documents = documents[at + 1 :]
            break
    entries = [(data, found["message"]) for data, found in documents if "message" in found]
    if view == HISTORY:
        return b"".join(data + b"\n" for data, _ in entries)
    lead = f"[archived context unavailable: {archive}]"
    messages = [] if archive is None else [{"role": "user", "content": lead}]
    return b"".join(_line(message) for message in [*messages, *(m for _, m in entries)])


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True)
class State:
    """What a view had to show, and since when (monotonic seconds)."""

    since: float
    text: bytes


class Past:
    """The history of what the views of one session had to show."""

    def __init__(self, session: SessionOnDisk) -> None:
        self.session = session
        self._states: dict[str, list[State]] = {view: [] for view in VIEWS}
        self.note()

    def note(self) -> None:
        """Record a change of the store; call this after every single change."""
        steps, now = self.session.steps(), time.monotonic()
        for view, states in self._states.items():
            text = shown(steps, view)
            if not states or states[-1].text != text:
                states.append(State(now, text))

    def now(self, view: str) -> bytes:
        """What the view must show now."""
        return self._states[view][-1].text

    def count(self, view: str) -> int:
        """The number of states so far: a mark for `since`."""
        return len(self._states[view])

    def since(self, view: str, mark: int) -> list[bytes]:
        """The states from the one that was current when `mark` was taken."""
        return [state.text for state in self._states[view][mark - 1 :]]

    def lately(self, view: str, seconds: float) -> Iterator[bytes]:
        """The states that the view had to show at any moment of the last `seconds`."""
        ended = time.monotonic()
        for state in reversed(self._states[view]):
            if time.monotonic() - ended > seconds:
                return
            yield state.text
            ended = state.since


def breaks(states: Sequence[bytes]) -> bool:
    """Whether any state does not begin with its predecessor."""
    return any(not b.startswith(a) for a, b in pairwise(states))

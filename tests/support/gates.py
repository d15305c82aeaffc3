"""A gate before the disk: what passes it in a thread waits until the loop opens it."""

from __future__ import annotations

import threading

import pytest

from fusefs.views.spool import Spool


def gated(monkeypatch: pytest.MonkeyPatch, call: str) -> threading.Event:
    """From now on this call of a spool waits for the event, and fails if that is never set."""
    gate, really = threading.Event(), getattr(Spool, call)

    def waits(*arguments: object) -> object:
        assert gate.wait(10), "the loop waited for the disk"
        return really(*arguments)

    monkeypatch.setattr(Spool, call, waits)
    return gate

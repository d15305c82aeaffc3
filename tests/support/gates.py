"""A gate in front of the disk: threads wait there until the loop opens it."""

from __future__ import annotations

import threading

import pytest

from fusefs.views.spool import Spool


def gated(monkeypatch: pytest.MonkeyPatch, call: str) -> threading.Event:
    """From now on this method of `Spool` waits for the returned event, and fails after 10 s."""
    gate, really = threading.Event(), getattr(Spool, call)

    def waits(*arguments: object) -> object:
        assert gate.wait(10), "the loop waited for the disk"
        return really(*arguments)

    monkeypatch.setattr(Spool, call, waits)
    return gate

"""Cuts: which of a session's steps a view takes for all there is (G29, G30)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AtStep:
    """The steps up to a number."""

    number: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """The steps that were stored by a time."""

    text: str
    """The time as it was written: each way to write it is a name of its own."""
    time_ns: int
    """In nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class InEpoch:
    """The steps before a compaction, the `number`-th; all of them while it has not come."""

    number: int


Cut = AtStep | AtTime | InEpoch

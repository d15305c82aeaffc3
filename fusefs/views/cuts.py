"""Cuts: the part of a session's steps that a view of the past shows (G29, G30)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AtStep:
    """Only the steps up to a number."""

    number: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """Only the steps that were stored by a time."""

    text: str
    """The time as the user wrote it: each spelling is a different name."""
    time_ns: int
    """The time in nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class InEpoch:
    """Only the steps before the compaction that ended epoch `number`; all, if it is the present one."""

    number: int


Cut = AtStep | AtTime | InEpoch

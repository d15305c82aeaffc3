"""Parses times given on a command line, and formats times for output."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Final

TIME_HELP: Final = "a date, a time (RFC 3339) or an age such as 90m, 12h, 7d, 2w"

_AGE: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(text: str) -> float:
    """Parse a date, a time or an age into seconds since 1970; a time without a zone is local.

    Raises `argparse.ArgumentTypeError`.
    """
    age = _AGE.fullmatch(text)
    try:
        if age:
            passed = timedelta(seconds=int(age[1]) * _UNIT_SECONDS[age[2]])
            return (datetime.now(UTC) - passed).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: give {TIME_HELP}") from None


def seconds_of(text: str) -> float | None:
    """Parse a document's time (nanoseconds allowed) into seconds since 1970; None if it fails."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def local(seconds: float) -> str:
    """A time for people: in the local zone, to the minute."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def rfc3339(seconds: float) -> str:
    """A time for programs: RFC 3339, UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

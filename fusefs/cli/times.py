"""Times as people give them on a command line, and as they read them."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Final

TIME_HELP: Final = "a date, a time (RFC 3339) or an age such as 90m, 12h, 7d, 2w"

_AGE: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(text: str) -> float:
    """Seconds since 1970 of what was given; a time without a zone is local.

    Raises `argparse.ArgumentTypeError`, as argparse wants of a type.
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
    """Seconds since 1970 of a time in a document, which may have nanoseconds; None if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def local(seconds: float) -> str:
    """A moment as people read it, in the local zone, to the minute."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def rfc3339(seconds: float) -> str:
    """A moment as programs read it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

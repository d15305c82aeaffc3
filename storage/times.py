"""Times as text: RFC 3339, to the nanosecond."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Final

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS: Final = 1_000_000_000
LEAP_SECOND: Final = 60


def nanoseconds(text: str) -> int | None:
    """The time that `text` tells, in nanoseconds since 1970 (UTC); None if it is not RFC 3339.

    A leap second counts as the second after it; digits beyond the nanosecond are dropped.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, _, sign, hours, minutes = match.groups()[6:]
    away = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if second > LEAP_SECOND or away >= timedelta(days=1) or int(minutes or 0) > 59:
        return None
    try:
        minute_begins = datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None
    since = minute_begins - _EPOCH + (away if sign == "-" else -away) + timedelta(seconds=second)
    whole = since.days * 86400 + since.seconds
    return whole * _NANOSECONDS + int(((fraction or "") + "0" * 9)[:9])


def now() -> str:
    """The time as the daemon writes it: RFC 3339, UTC, nanoseconds."""
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09}+00:00"

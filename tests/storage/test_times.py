"""Times as text: the forms that people write in names, and the one that the daemon writes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.times import nanoseconds, now

ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(time=st.datetimes(datetime(1902, 1, 1), datetime(2200, 1, 1), timezones=ZONES))
def test_a_time_of_any_zone_is_read_to_the_microsecond(time: datetime) -> None:
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    assert nanoseconds(time.isoformat()) == since // timedelta(microseconds=1) * 1000


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01z", 10**9),
        ("1970-01-01 00:00:01+00:00", 10**9),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.1234567899999Z", 123_456_789),
        ("1969-12-31T23:59:59.9Z", -100_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800 * 10**9),
        ("2026-11-22T22:14:13.109491572+01:00", 1_795_382_053_109_491_572),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: str, time: int) -> None:
    assert nanoseconds(text) == time


def test_the_time_that_a_step_is_stored_with_is_read_back() -> None:
    before = datetime.now(UTC).timestamp()
    found = nanoseconds(now())
    assert found is not None
    assert 0 <= found / 1e9 - before < 60


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22T21:14:13",
        "2026-11-22T21:14Z",
        "2026-13-22T21:14:13Z",
        "2026-02-30T21:14:13Z",
        "2026-11-22T24:14:13Z",
        "2026-11-22T21:14:61Z",
        "2026-11-22T21:14:13.Z",
        "2026-11-22T21:14:13+25:00",
        "2026-11-22T21:14:13+00:60",
        "2026-11-22T21:14:13+0000",
        "２026-11-22T21:14:13Z",
        " 2026-11-22T21:14:13Z",
        "7",
    ],
)
def test_text_that_is_not_rfc_3339_is_not_a_time(text: str) -> None:
    assert nanoseconds(text) is None


def test_the_time_is_written_as_the_daemon_does() -> None:
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\+00:00"
    assert re.fullmatch(form, now())

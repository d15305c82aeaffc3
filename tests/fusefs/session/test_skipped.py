"""Of many skipped files a few are named, and the others counted."""

from __future__ import annotations

import pytest

from fusefs.session.skipped import NAMED, REMEMBERED, Skipped


def _skip(skipped: Skipped, count: int) -> None:
    for number in range(count):
        skipped.note(f"step-{number:06}", "empty")
    skipped.sum_up()


@pytest.mark.guarantee("S2")
def test_each_of_a_few_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    skipped = Skipped("a_b_1")
    _skip(skipped, NAMED)
    _skip(skipped, NAMED)
    assert caplog.messages == [f"a_b_1/step-{n:06} is skipped: empty" for n in range(NAMED)]


@pytest.mark.guarantee("S2")
def test_a_hundred_thousand_skipped_files_give_a_few_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    skipped = Skipped("a_b_1")
    _skip(skipped, 100)
    assert len(caplog.messages) == NAMED + 1
    assert f": {100 - NAMED} more of its files" in caplog.messages[-1]
    for _ in range(3):
        _skip(skipped, 100_000)
    assert len(caplog.messages) == NAMED + 2
    assert f": at least {REMEMBERED - NAMED} more of its files" in caplog.messages[-1]

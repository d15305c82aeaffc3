"""The files of `.stepfs`: what an open one keeps in memory is bounded."""

from __future__ import annotations

import errno

import pytest
import trio

from fusefs.dotdir.files import FOLLOWED_BYTES, OpenErrors
from fusefs.failures import KERNEL, Failures
from storage.errors import StoreError


@pytest.mark.guarantee("G23a", "G19a")
def test_a_follower_of_the_failures_reads_every_line_and_old_ones_are_freed() -> None:
    async def scenario() -> None:
        failures = Failures()
        follower = OpenErrors(failures)
        offset, lines = 0, 0
        for _ in range(20):
            for number in range(500):
                sentence = "x" * 1000 + str(number)
                failures.record("crab_tg-1_1", "append", "write", _error(sentence), KERNEL)
            while read := await follower.read(offset, 1 << 20):
                offset += len(read)
                lines += read.count(b"\n")
        assert lines == failures.count == 10_000
        assert offset > 2 * FOLLOWED_BYTES
        assert len(await follower.read(offset - FOLLOWED_BYTES, offset)) == FOLLOWED_BYTES
        with pytest.raises(StoreError) as refused:
            await follower.read(0, 100)
        assert refused.value.errno == errno.EIO

    trio.run(scenario)


def _error(sentence: str) -> StoreError:
    return StoreError(errno.EINVAL, "not-json", sentence)

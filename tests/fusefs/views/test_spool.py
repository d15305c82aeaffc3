"""A spool returns what was written to it, and nobody waits for its file to be freed."""

from __future__ import annotations

import os
import threading

import pytest

from fusefs.views.spool import SMALL_BYTES, Spool


def test_what_was_written_is_read_back_by_its_place() -> None:
    spool = Spool()
    first, second = spool.write(b"first"), spool.write(b"second")
    assert spool.read(first, 5) == b"first"
    assert spool.read(second, 6) == b"second"
    spool.close()


def test_a_spool_in_use_is_closed_when_the_last_user_is_done() -> None:
    spool = Spool()
    at = spool.write(b"text")
    with spool:
        spool.close()
        assert spool.read(at, 4) == b"text"
    with pytest.raises(OSError, match="Bad file descriptor"):
        spool.read(at, 4)


@pytest.mark.guarantee("G19c")
@pytest.mark.parametrize("size", [1, SMALL_BYTES + 1])
def test_a_large_file_is_freed_by_a_thread(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    closed: list[threading.Thread] = []
    done = threading.Event()

    def close(fd: int) -> None:
        closed.append(threading.current_thread())
        really_close(fd)
        done.set()

    really_close = os.close
    spool = Spool()
    spool.write(b"x" * size)
    monkeypatch.setattr(os, "close", close)
    spool.close()
    assert done.wait(10)
    assert (closed == [threading.current_thread()]) is (size <= SMALL_BYTES)

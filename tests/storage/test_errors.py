"""The store's error, also when another process raised it."""

from __future__ import annotations

import errno
import pickle

from storage.errors import StoreError, from_os_error


def test_an_error_is_its_sentence() -> None:
    assert str(StoreError(errno.ENOSPC, "full", "there is no room")) == "there is no room"


def test_an_error_of_another_process_says_the_same_here() -> None:
    error = pickle.loads(pickle.dumps(StoreError(errno.ENOSPC, "full", "there is no room")))
    assert (error.errno, error.code, error.sentence) == (errno.ENOSPC, "full", "there is no room")
    assert error.errno_name == "ENOSPC"


def test_estale_of_a_shared_file_system_means_deleted() -> None:
    error = from_os_error(OSError(errno.ESTALE, "Stale file handle"), "read step-000001")
    assert error.errno == errno.ENOENT
    assert error.sentence == "could not read step-000001: No such file or directory"

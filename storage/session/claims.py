"""Claims step numbers: stores a step under the next free one.

A step is claimed by linking a complete file under its name (G15). The link is exclusive, so nobody's
step is ever replaced, and a crash leaves no torn step. The complete file is an unnamed one (`O_TMPFILE`)
on local file systems, of which a crash leaves nothing, and a hidden temporary elsewhere: some shared
file systems accept an unnamed file and then lose it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from storage.ahead import Outcome, start
from storage.errors import StoreError, from_os_error
from storage.posix import listing, refresh, token, write_all
from storage.session.steps import NUMBER_MAX, Ownership, step_identity, step_name, step_number
from storage.session.tombstone import is_deleted

_COLLISIONS: Final = 4
"""After this many taken numbers in a row, list the directory: others may have stored many steps."""
FILES_AHEAD: Final = 3
"""Files of a batch that are written ahead of being linked. Creating and linking a file both lock the
directory, so more would only wait."""
_ATTEMPTS: Final = 5
_RETRY_SECONDS: Final = 0.2
_PASSING: Final = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EINTR, errno.EREMOTEIO}
    | {errno.EEXIST}
)
"""Errors after which a link is tried again if its name is free: it may just have been freed."""
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
UNKNOWN: Final = 0


@dataclass(slots=True)  # not frozen, which would double the time to create one
class Claim:
    """A step that was stored: its number, and its open descriptor if the caller asked to keep it."""

    number: int
    fd: int | None
    identity: int
    """Its `step_identity` for as long as nobody replaces or edits it, or `UNKNOWN`."""


class Claimer:
    """Claims step numbers in one session's directory.

    Usable from any thread, by one at a time.
    """

    def __init__(self, session_fd: int, unnamed: bool) -> None:
        """`unnamed`: the store is near and has `Capabilities.unnamed_files`."""
        self.fd = session_fd
        self._unnamed = unnamed
        self.clearing: Outcome[None] | None = None
        """The removal of the last temporaries, and of all before them; None if there were none."""
        self.took: Ownership | None = None
        """The ownership that `confirm` last returned; None if it never did."""

    def claim(
        self,
        first: int,
        data: bytes,
        ownership: Ownership,
        *,
        sync: bool = False,
        keep: bool = False,
    ) -> Claim:
        """Store `data` under the first free number from `first` on (G15).

        After several taken numbers in a row, continues above the greatest in the directory. With `sync`
        the contents are on disk before the name exists (G17). With `keep` the claim has an open
        descriptor for a later fdatasync; without unnamed files the contents are already on disk instead.
        Raises `StoreError` with the errno of the system call that failed; nothing of the step is left
        then, and no name of it as long as the file system answers (G25).
        """
        try:
            if self._unnamed:
                fd = self._unnamed_file(data, ownership, sync)
                if fd is not None:
                    return self._claim_unnamed(fd, first, keep)
        except OSError as error:
            raise from_os_error(error, "store a step") from error
        claims, failed = self.claim_batch(first, [data], ownership, sync=sync or keep)
        self.settle()
        if failed is not None:
            raise failed
        return claims[0]

    def claim_batch(
        self,
        first: int,
        batch: Sequence[bytes],
        ownership: Ownership,
        *,
        sync: bool = False,
        names: Outcome[None] | None = None,
        until: float = math.inf,
        confirm: Callable[[], Ownership] | None = None,
    ) -> tuple[list[Claim], StoreError | None]:
        """Store the texts in `batch` in order, as `claim` does without unnamed files: for far stores.

        Files are written in parallel and linked one after the other; after `until` seconds no more are,
        but at least one. At the end it is checked once whether the session was deleted meanwhile. With
        `sync` the contents are on disk before their names exist (G17). If any do, the call `names` puts
        these on disk, in another thread; removals, which would delay it, come after it.
        With `confirm`, `ownership` is the last known one, and the current one is what `confirm` returns
        while the first files are written. Returns the claims of the stored steps, and the error of the
        next one (or what `confirm` raised). The temporaries are gone once `settle` has returned.
        """
        numbers: list[int] = []
        error: StoreError | None = None
        end = time.monotonic() + until
        make = partial(self._temporary, ownership, sync)
        files = deque(Outcome(partial(make, data)) for data in batch[:1])
        linked: list[Outcome[str]] = []
        identities: list[Outcome[int]] = []
        left = iter(batch[1:])
        asked = None if confirm is None else start(confirm)
        files.extend(start(partial(make, data)) for data in itertools.islice(left, FILES_AHEAD - 1))
        if files:
            files[0].run()  # in this thread, which has nothing else to do until then
        try:
            while not numbers or time.monotonic() < end:
                ahead_of_links = itertools.islice(left, FILES_AHEAD - len(files))
                files.extend(start(partial(make, data)) for data in ahead_of_links)
                if not files:
                    break
                if asked is not None:
                    self.took, asked = asked.get(), None
                    if self.took != ownership:
                        self._clear_beside(files)
                        return self.claim_batch(
                            first, batch, self.took, sync=sync, names=names, until=until
                        )
                linked.append(files.popleft())
                # Begun before it has a name, under which others could edit it.
                identities.append(start(partial(self._identity, linked[-1].get())))
                link = partial(self.link_named, linked[-1].get())
                numbers.append(self.first_free(first, link))
                first = numbers[-1] + 1
        except OSError as failed:
            error = from_os_error(failed, "store a step")
        except StoreError as failed:
            error = failed
        if self._was_deleted():
            for number in numbers:
                with contextlib.suppress(OSError):
                    os.unlink(step_name(number), dir_fd=self.fd)
            numbers, error = [], from_os_error(FileNotFoundError(errno.ENOENT, ""), "store a step")
        found = zip(numbers, identities, strict=False)
        claims = [Claim(number, None, identity.get()) for number, identity in found]
        # Only now: removals would delay the checks above, and leave no name to be looked at.
        self._clear_beside((*linked, *files), names if numbers else None)
        return claims, error

    def settle(self) -> None:
        """Wait until the temporaries of all batches were removed."""
        if self.clearing is not None:
            self.clearing.get()

    def _claim_unnamed(self, fd: int, first: int, keep: bool) -> Claim:
        number = None
        try:
            identity = step_identity(os.fstat(fd))
            number = self.first_free(first, partial(self._link_unnamed, fd))
            return Claim(number, fd if keep else None, identity)
        finally:
            if number is None or not keep:
                os.close(fd)

    def _unnamed_file(self, data: bytes, ownership: Ownership, sync: bool) -> int | None:
        flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
        try:
            fd = os.open(".", flags, ownership.mode, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in _NO_UNNAMED or os.fstat(self.fd).st_nlink == 0:
                raise
            self._unnamed = False
            return None
        try:
            _fill(fd, data, ownership, sync)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _temporary(self, ownership: Ownership, sync: bool, data: bytes) -> str:
        """Write and close a hidden file: on some file systems a link shows only what was closed.

        Nobody else has its name, so it need not be created exclusively, which takes NFS much longer.
        """
        name = f".stepfs-{token()}.tmp"
        flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, ownership.mode, dir_fd=self.fd)
        try:
            try:
                _fill(fd, data, ownership, sync)
            finally:
                os.close(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self.fd)
            raise
        return name

    def _identity(self, name: str) -> int:
        try:
            return step_identity(os.stat(name, dir_fd=self.fd, follow_symlinks=False))
        except OSError:
            return UNKNOWN

    def _clear_beside(
        self, temporaries: Iterable[Outcome[str]], names: Outcome[None] | None = None
    ) -> None:
        """Start to sync `names` and to remove temporaries in a thread, for which no writer waits."""
        self.clearing = start(partial(_clear, self.fd, tuple(temporaries), names, self.clearing))

    def _was_deleted(self) -> bool:
        """Whether the session is certainly deleted; in doubt, linked steps count as stored."""
        try:
            return is_deleted(self.fd)
        except OSError:
            return False

    def first_free(self, first: int, link: Callable[[str], bool]) -> int:
        """The first number from `first` on whose name `link` could make. Raises `StoreError`."""
        number = first
        for taken in itertools.count(1):
            if number > NUMBER_MAX:
                break
            if link(step_name(number)):
                return number
            number += 1
            if taken % _COLLISIONS == 0:
                number = max(number, self._greatest() + 1)
        raise StoreError(
            errno.EOVERFLOW, "numbers-used-up", "the session has no free step number left"
        )

    def _greatest(self) -> int:
        numbers = (step_number(name) for name in listing(self.fd) if name.startswith("step-"))
        return max((number for number in numbers if number and number <= NUMBER_MAX), default=0)

    def _link_unnamed(self, fd: int, name: str) -> bool:
        """Link an open unnamed file; False if the name is taken. Raises `OSError`."""
        try:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=self.fd, follow_symlinks=True)
        except FileExistsError:
            return False
        return True

    def link_named(self, temporary: str, name: str) -> bool:
        """Link the file `temporary` under `name`; False if another file has that name.

        The reply to a link can be lost or unclear on a network, so after any error the name is checked;
        if it is free and the error passing, the link is tried again (G25). Raises `OSError`.
        """
        for left in reversed(range(_ATTEMPTS)):
            try:
                os.link(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except OSError as error:
                if (mine := self._is_mine(temporary, name)) is not None:
                    return mine  # whatever the error: sshfs returns EPERM if the name exists
                if left == 0 or error.errno not in _PASSING or self._was_deleted():
                    raise
            else:
                return True
            refresh(name, self.fd)
            time.sleep(_RETRY_SECONDS)
        raise AssertionError("unreachable")

    def _is_mine(self, temporary: str, name: str) -> bool | None:
        """Whether the file `temporary` has this name; None if it is free. Raises `OSError`."""
        look = partial(os.stat, dir_fd=self.fd, follow_symlinks=False)
        for left in reversed(range(_ATTEMPTS)):
            try:
                return os.path.samestat(look(name), look(temporary))
            except FileNotFoundError:  # if it is the temporary, the next link says so
                break
            except OSError:  # which says nothing of the link: it may have been made (G15)
                if left == 0 or self._was_deleted():
                    raise
            refresh(name, self.fd)
            time.sleep(_RETRY_SECONDS)
        return None


def _fill(fd: int, data: bytes, ownership: Ownership, sync: bool) -> None:
    write_all(fd, data)
    if ownership.owner is not None:
        os.fchown(fd, *ownership.owner)
    if sync:
        os.fdatasync(fd)


def _clear(
    directory: int,
    temporaries: Sequence[Outcome[str]],
    names: Outcome[None] | None,
    after: Outcome[None] | None,
) -> None:
    if names is not None:
        names.run()
    if after is not None:
        after.get()
    for temporary in temporaries:
        with contextlib.suppress(OSError):  # it was never created, or `stepfs check` finds it
            os.unlink(temporary.get(), dir_fd=directory)

"""Moves a step to another number while a daemon may rename a file over its name (G16).

No system call removes a name only if it still belongs to a given file. So a step is checked just before
it is moved, and again under its new name: if another file was moved by accident, it gets its name back.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial

from storage.errors import from_os_error
from storage.posix import UNSUPPORTED, rename_new, token
from storage.session.claims import Claimer
from storage.session.steps import step_identity, step_name


class Mover:
    """Moves steps within one session's directory. Usable from any thread, one at a time."""

    def __init__(self, claimer: Claimer, *, renames: bool) -> None:
        """`renames` allows renames that never replace a file; only for near stores."""
        self._claimer = claimer
        self._fd = claimer.fd
        self._renames = renames

    def move(self, number: int, identity: int, first: int) -> int | None:
        """Move step `number` with this `identity` to the first free number from `first` on.

        Returns the new number, or None if the name belongs to another file by now, which keeps it.
        Raises `StoreError`.
        """
        old = step_name(number)
        try:
            status = self._stat(old)
            if step_identity(status) != identity:
                return None
            move = self._renamed if self._renames else self._linked
            return move(old, status, first)
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._renames and error.errno in UNSUPPORTED:
                self._renames = False
                return self.move(number, identity, first)
            raise from_os_error(error, f"move {old}") from error

    def _renamed(self, old: str, status: os.stat_result, first: int) -> int | None:
        """Move by rename: the step has exactly one name at any time, even if we are killed."""
        target = self._claimer.first_free(first, partial(self._rename, old))
        if self._is(target, status):
            return target
        if not self._rename(step_name(target), old):
            os.unlink(step_name(target), dir_fd=self._fd)  # it was replaced meanwhile
        return None

    def _linked(self, old: str, status: os.stat_result, first: int) -> int | None:
        """Move by link and unlink, for file systems without RENAME_NOREPLACE."""
        target = self._claimer.first_free(first, partial(self._claimer.link_named, old))
        if self._is(target, status) and self._drop(old, status):
            return target
        os.unlink(step_name(target), dir_fd=self._fd)
        return None

    def _drop(self, name: str, status: os.stat_result) -> bool:
        """Remove `name` if it belongs to the file with this `status`; False if the name is gone."""
        aside = f".stepfs-{token()}.tmp"
        try:
            if not os.path.samestat(self._stat(name), status):
                return True  # it belongs to another file by now
            os.rename(name, aside, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except FileNotFoundError:
            return False
        if not os.path.samestat(self._stat(aside), status):
            with contextlib.suppress(FileExistsError):
                os.link(aside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.unlink(aside, dir_fd=self._fd)
        return True

    def _rename(self, old: str, new: str) -> bool:
        """Rename unless `new` exists; whether that was done."""
        try:
            rename_new(old, new, self._fd)
        except FileExistsError:
            return False
        return True

    def _is(self, number: int, status: os.stat_result) -> bool:
        return os.path.samestat(self._stat(step_name(number)), status)

    def _stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

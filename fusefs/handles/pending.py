"""The budget for unstored data that all open files hold together (G23)."""

from __future__ import annotations

import errno
from collections import Counter

from storage.errors import StoreError


class PendingBudget:
    """Counts unfinished lines and objects, and the text of open metas, by user. Loop-owned.

    No user gets more than half of what the others leave, so that there is always room for one more.
    """

    def __init__(self, limit: int) -> None:
        """`limit` is in bytes."""
        self.limit = limit
        self.bytes = 0
        self._by_user: Counter[int] = Counter()

    def resize(self, user: int, before: int, after: int) -> None:
        """An open file of `user` held `before` bytes, and now holds `after`.

        Raises `StoreError` ENOBUFS, with nothing changed, where that is too much.
        """
        more = after - before
        others = self.bytes - self._by_user[user]
        if more > 0 and 2 * (self._by_user[user] + more) > self.limit - others:
            raise StoreError(
                errno.ENOBUFS,
                "pending-full",
                f"unfinished lines and open metas may hold {self.limit} bytes together, one user's"
                " half of what others leave: end lines with a newline, or raise the pending option",
            )
        self.bytes += more
        self._by_user[user] += more
        if not self._by_user[user]:
            del self._by_user[user]

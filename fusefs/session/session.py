"""A session: all that the mount knows about one, kept up to date by events from its directory.

Concurrency. A session belongs to the loop. Between two awaits a task owns it; across an await, `touched`
collects for who refreshes which steps have changed. `lock` serialises tasks that refresh the
session, `writing` those that store steps. Threads get copies and never touch the session.

A session need not be open: `Pool` opens it (descriptor, watch, index) for its users, lets it rest
without a descriptor when many are open, and closes it when very many are; its epochs stay.
"""

from __future__ import annotations

import errno
from collections.abc import Set
from enum import Enum

from fusefs.inotify import Change
from fusefs.session.extents import Extents
from fusefs.session.judged_steps import JudgedSteps
from fusefs.session.recent_steps import RecentSteps
from fusefs.session.skipped import Skipped
from fusefs.session.step_texts import StepTexts
from fusefs.session.step_times import redated
from fusefs.session.unsynced import Unsynced
from fusefs.turn import Turn
from fusefs.views.epoch import Epoch
from fusefs.views.formats import View
from storage.documents.pool import Documents
from storage.errors import StoreError, printable
from storage.formats.kinds import Step
from storage.posix import may_be_regular
from storage.session.claims import UNKNOWN, Claimer
from storage.session.index import Index
from storage.session.meta import NAME as META
from storage.session.reader import Reader
from storage.session.steps import is_usual, step_name, step_number


class Meaning(Enum):
    """What a change in the directory means for the session."""

    NOTHING = "nothing that was not known"
    GREW = "a step came after all others"
    CHANGED = "something else is different"
    GONE = "the session was deleted or moved away"


class Session:
    """One session of the store."""

    __slots__ = (
        "backlog", "changed_at", "changes", "claimer", "epochs", "extents", "fd", "gone",
        "identity", "index", "judged", "listed_at", "listing_seconds", "lock", "losses", "opening",
        "own", "reader", "recent", "refreshing", "rests", "skipped", "slug", "stale", "surveying",
        "syncing", "touched", "unsynced", "users", "verified", "watch", "weighed", "writing",
    )  # fmt: skip

    def __init__(
        self, slug: str, identity: tuple[int, int] | None = None, texts: StepTexts | None = None
    ) -> None:
        """`texts` is shared by all sessions of the mount."""
        self.slug = slug
        self.identity = identity
        """Device and inode number of its directory; None until it was opened."""
        self.gone = False
        """Whether it was deleted, or another session has its name. Final."""
        self.users = 0
        """Open files and operations that need it open."""
        self.epochs: dict[View, Epoch] = {}
        """The present epoch of each view."""
        self.lock = Turn()
        self.writing = Turn()
        self.syncing = Turn()
        self.opening = Turn()
        self.surveying = Turn()
        """Held while it is refreshed, stored to, synced, opened and surveyed, respectively."""
        self.unsynced = Unsynced()
        """Steps that may not be on disk yet."""
        self.recent = RecentSteps(StepTexts() if texts is None else texts)
        """Steps of this mount that a daemon may still displace."""
        self.judged = JudgedSteps()
        """Steps that were just stored or read, so that views need not read them again."""
        self.changes = 0
        """Counts changes in its directory; also grows when the session is closed."""
        self.weighed = 0
        """Indexed steps that `Pool` has counted for it."""
        self.fd = -1
        """Descriptor of its directory; -1 unless it is open."""
        self.watch: int | None = None
        """The watch that reports every change; None without events. May stay when it is closed."""
        self.opened(-1, near=False)

    def opened(self, fd: int, *, near: bool, documents: Documents | None = None) -> None:
        """Its directory was opened as `fd`; nothing is known about its contents yet."""
        self.reopened(fd, near=near, documents=documents)
        self.index = Index()
        self.extents = Extents(self.slug)
        self.verified = False
        """Whether its name was looked up and no event since could have moved it."""
        self.stale = True
        """Whether the index has to be rebuilt."""
        self.listed_at = 0.0
        self.listing_seconds = 0.0
        """Duration of the last listing, without `Stamps.extra_seconds`."""
        self.changed_at = 0.0
        """When a listing last differed from the one before."""
        self.losses = 0
        """Counts calls of `missed`."""
        self.backlog: list[Change] | None = None
        """Changes since the listing in progress began; None if there is none."""
        self.touched: set[int] = set()
        """Numbers of steps that have changed since who refreshes cleared this."""
        self.refreshing: View | None = None
        """What the holder of `lock` refreshes."""
        self.own: dict[int, int] = {}
        """Without events: the identities of steps that this mount has stored since the last listing."""
        self.skipped = Skipped(self.slug)
        for epoch in self.epochs.values():
            epoch.doubt()

    def reopened(self, fd: int, *, near: bool, documents: Documents | None = None) -> None:
        """Its directory was opened as `fd` again, and has not changed while the session rested."""
        self.fd, self.rests = fd, False
        self.reader = Reader(fd, documents)
        self.claimer = Claimer(fd, unnamed=near)

    def rested(self) -> None:
        """Its directory was closed; its watch reports when the cached contents become outdated."""
        self.fd, self.rests = -1, True
        self.judged.clear()

    def closed(self) -> None:
        """It is neither open nor resting: the text of its epochs was dropped from memory."""
        self.fd, self.rests = -1, False
        self.changes += 1
        self.index, self.extents = Index(), Extents(self.slug)
        self.judged.clear()
        self.unsynced.close()

    @property
    def is_open(self) -> bool:
        """Whether its directory is open."""
        return self.fd >= 0

    @property
    def is_known(self) -> bool:
        """Whether its cached contents can be used: it is open, or rests and has not changed since."""
        return self.is_open or (self.rests and not self.stale and not self.gone)

    @property
    def is_told(self) -> bool:
        """Whether it learns of every change in its directory, by `apply` or `missed`."""
        return self.watch is not None and not self.gone

    @property
    def busy(self) -> bool:
        """Whether somebody is using it."""
        return bool(self.users) or any(
            turn.locked()
            for turn in (self.lock, self.writing, self.syncing, self.opening, self.surveying)
        )

    def end(self, view: View) -> int:
        """The number of the last step that a view must show. Raises `StoreError` as `Extents.end`."""
        return self.extents.end(view.cut, self.index)

    def apply(self, change: Change) -> Meaning:
        """Apply a change in the directory, and return what it means."""
        self.changes += 1
        if change.gone:
            self.gone, self.verified = True, False
            return Meaning.GONE
        if change.name == META:
            self.verified = False
        number = step_number(change.name)
        if number is not None and is_usual(change.name) and not change.attributes:
            self._befell(number, change)
        if not self.is_open and (number is None or not change.attributes):
            self.stale = True
            return Meaning.CHANGED
        if self.backlog is not None:
            self.backlog.append(change)
            return Meaning.CHANGED
        return self._take(change)

    def missed(self) -> None:
        """Changes were missed: list again and compare every epoch before anything is shown."""
        self.changes += 1
        self.stale, self.verified = True, False
        self.losses += 1
        self.judged.clear()
        if self.watch is not None:  # else the next listing shows what has changed
            self.recent.doubt()

    def relisted(self, new: Index, stale: bool, known: Set[str] = frozenset()) -> list[int] | None:
        """Take over a new listing of the directory. Returns the numbers of the steps that have changed
        since the last one, but for names `known` as they are; None if that may be any."""
        old, backlog = self.index, self.backlog or []
        self.backlog, self.index, self.stale = None, new, stale
        changed: list[int] | None = None
        if old.stamps is not None and new.stamps is not None:
            names = new.stamps.changed(old.stamps) - known
            changed = sorted({number for name in names if (number := step_number(name))})
            for number in changed:
                self.touch(number)
        else:
            self._doubt_everything()
        if self.watch is None:
            self.recent.doubt(changed)
        for change in backlog:
            self._take(change)
        return changed

    def unlisted(self) -> None:
        """The directory could not be listed: apply the backlog to the old index."""
        backlog, self.backlog = self.backlog or [], None
        for change in backlog:
            self._take(change)

    def stored(self, number: int, step: Step, identity: int = UNKNOWN) -> None:
        """This mount has stored a step, of that `step_identity`."""
        if self.restored(number, identity) and self.is_told and number not in self.index.odd:
            self.judged.add(step_name(number), step)

    def restored(self, number: int, identity: int = UNKNOWN) -> bool:
        """This mount has stored a step again, or moved it, to `number`. Returns whether that is new; if
        others took it away since, events have told so."""
        self.changes += 1
        if number in (self.recent.early or ()) or self.index.add(step_name(number)) is None:
            return False
        if self.watch is None:
            self.own[number] = identity
        self.touch(number)
        return True

    def touch(self, number: int) -> None:
        """Step `number` was added, removed or changed."""
        if self.refreshing is not None:
            self.touched.add(number)
        self.judged.forget(step_name(number))
        self.extents.changed(number)
        for view, epoch in self.epochs.items():
            if number > epoch.last or (view.format.history and number < epoch.boundary.number):
                continue
            if number > max(epoch.last_shown, epoch.boundary.number):
                epoch.last = number - 1
            else:
                epoch.doubt()

    def touches(self, first: int, last: int) -> bool:
        """Whether a step from `first` to `last` has changed since `touched` was cleared."""
        return any(first <= number <= last for number in self.touched)

    def drop(self, view: View) -> None:
        """Drop a view that no inode shows any more."""
        self.epochs.pop(view, None)
        if all(other.cut != view.cut for other in self.epochs):
            self.extents.forget(view.cut)

    def deleted(self) -> StoreError:
        """The error for users of a session that was deleted underneath them (G20)."""
        sentence = f"the session {printable(self.slug)} was deleted"
        return StoreError(errno.ENOENT, "session-deleted", sentence)

    def replaced(self) -> StoreError:
        """The error if another session has its name: ESTALE makes the kernel look it up again."""
        sentence = f"another session has the name {printable(self.slug)} by now"
        return StoreError(errno.ESTALE, "session-replaced", sentence)

    def _take(self, change: Change) -> Meaning:
        number = step_number(change.name)
        if number is None:
            return Meaning.CHANGED
        if change.disappeared:
            return self._lost(change.name)
        if change.appeared:
            return self._appeared(change, number)
        if not self.index.has(number):
            return Meaning.NOTHING
        if change.attributes:
            redated(self, number)
        else:
            self.touch(number)
        return Meaning.CHANGED

    def _befell(self, number: int, change: Change) -> None:
        """Apply a change of a step's name to the steps that this mount remembers (G16)."""
        if change.unsure:
            self.recent.doubt((number,))
        elif not change.appeared or change.disappeared:
            self.recent.forget(number)
        elif change.moved_from is None:
            self.recent.created(number)
        else:
            self.recent.moved_over(number, change.moved_from)

    def _lost(self, name: str) -> Meaning:
        if (number := self.index.discard(name)) is None:
            return Meaning.NOTHING
        self.touch(number)
        return Meaning.CHANGED

    def _appeared(self, change: Change, number: int) -> Meaning:
        if change.moved_from is None and self.index.knows(change.name, number):
            return Meaning.GREW  # the CREATE of a step that this mount stored itself
        if not may_be_regular(change.name, self.fd):
            self.skipped.note(change.name, "it is not a regular file")
            self._lost(change.name)  # a step that it may have replaced is gone
            return Meaning.CHANGED
        after_all = number > self.index.greatest
        self.index.add(change.name)
        self.touch(number)
        return Meaning.GREW if after_all else Meaning.CHANGED

    def _doubt_everything(self) -> None:
        self.extents.forget_all()
        self.judged.clear()
        for epoch in self.epochs.values():
            epoch.doubt()

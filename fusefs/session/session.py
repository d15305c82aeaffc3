"""One live session: its views, made to follow what is known of the store.

Where the history begins, which steps a view shows and whether what it showed is still a prefix of
what it must show is decided here (G12, G13). `fusefs.session.known` says who may touch what when.
"""

from __future__ import annotations

import errno
import itertools
import os
from array import array
from functools import partial
from typing import Final

from fusefs.session.known import KnownSession
from fusefs.views.text_cache import Segment, TextCache
from fusefs.views.views import Manner, PrefixCheck, View
from storage.archives import Memory
from storage.errors import StoreError, from_os_error, printable
from storage.session.index import Index
from storage.session.replay import PASS_STEPS, START, Boundary, backwards, find_boundary, forwards

PATIENCE: Final = 3
"""How often a view is made again because steps were changed meanwhile."""

BOUNDARY_ONLY: Final = Manner("compact", lambda _step: None, history=True)
"""Shows nothing, and so follows where the history begins."""


class LiveSession(KnownSession):
    """A session that somebody looks at."""

    def __init__(
        self, slug: str, fd: int, watch: int | None, local: bool, cache: TextCache, memory: Memory
    ) -> None:
        super().__init__(slug, fd, watch, local)
        self.views: dict[str, View] = {}
        self._cache = cache
        self._memory = memory

    async def refresh(self, manner: Manner, exact: bool = True) -> View:
        """The view of that manner, showing every step that is in the store now (G12).

        Without `exact` it may be a second behind where no events tell of changes. Raises
        `StoreError` where the store cannot be read.
        """
        view = self.views.get(manner.name)
        if view is not None and self._is_fresh(view):
            return view
        async with self.lock:
            try:
                await self._relist(exact)
                # What comes later need not be shown, or a fast writer would never be caught up with.
                end = self.index.greatest
                for patience in itertools.count(PATIENCE, -1):
                    if await self._settle(self.view(manner), end, patience > 0):
                        break
                return self._dated(self.view(manner))
            except OSError as error:
                raise from_os_error(error, f"read the steps of {printable(self.slug)}") from error

    async def archive(self) -> str | None:
        """The present archive: that of the last compaction."""
        return (await self.refresh(BOUNDARY_ONLY)).boundary.archive

    async def text(self, view: View, segment: Segment) -> bytes:
        """The text of a segment, rendered again if it was let go. Raises `StoreError` EIO."""
        text = self._cache.text(view, segment)
        if text is None:
            odd = dict(self.index.odd)
            text = await self._run(len(segment.shown), partial(self._render, view, segment, odd))
            if segment.text is not None:
                return segment.text
            if not segment.is_text(text):
                view.suspect = True
                sentence = "a step changed while it was read: open the file again"
                raise StoreError(errno.EIO, "changed-underneath", sentence)
            self._cache.keep(view, segment, text)
        return text

    def unpin(self, view: View) -> None:
        """An open file does not need the view any more."""
        view.opens -= 1
        if view.pinned:
            return
        if view.superseded or self.dead:
            self._cache.drop(view)
        else:
            self._cache.unpinned(view)

    async def pin(self, view: View) -> None:
        """Make sure that the text of an open view is held, whatever becomes of the store (G13)."""
        lost = self._cache.lost
        if view.held_as_of != lost:
            for segment in view.segments:
                if not segment.held:
                    await self.text(view, segment)
            view.held_as_of = lost

    def view(self, manner: Manner) -> View:
        """The present view of that manner, which may not be built yet."""
        if manner.name not in self.views:
            self.views[manner.name] = View(manner, self._cache)
        return self.views[manner.name]

    def _is_fresh(self, view: View) -> bool:
        return (
            view.built
            and not view.suspect
            and not self._stale
            and self.watch is not None
            and view.last >= self.index.greatest
            and self._begins_right(view)
        )

    def _begins_right(self, view: View) -> bool:
        if not view.manner.history:
            return True
        return view.boundary == self.boundary and view.lead == self._lead(view.manner)

    def _lead(self, manner: Manner) -> bytes:
        if manner.lead is None or self.boundary is None or self.boundary.archive is None:
            return b""
        return manner.lead(self.boundary.archive, self._memory.text(self.boundary.archive))

    async def _settle(self, view: View, end: int, patient: bool) -> bool:
        """One step towards a view that shows the steps up to `end`; whether it is there.

        Where steps are changed faster than they are read it is taken as it was read: each step as
        it was at some time since.
        """
        if view.manner.history and self.boundary is None:
            if view.built:
                self.boundary = await self._search()
            else:
                await self._build_backwards(view)
            return False
        if not view.built:
            view.begin(self._start(view.manner), self._lead(view.manner))
            view.built = True
        elif view.suspect or not self._begins_right(view):
            compared = await self._compare(view, max(end, view.last), patient)
            return compared and not patient
        return await self._extend(view, end)

    def _start(self, manner: Manner) -> Boundary:
        return self.boundary if manner.history and self.boundary is not None else START

    async def _search(self) -> Boundary | None:
        self._disturbed.clear()
        index = Index(array("Q", self.index.numbers), dict(self.index.odd))
        found = await self._run(PASS_STEPS, partial(find_boundary, self.reader, index))
        self.look()
        return None if self._touches(found.number, index.greatest) else found

    async def _build_backwards(self, view: View) -> None:
        """The first look at a history: from the end to the last compaction, keeping the lines."""
        self._disturbed.clear()
        top = self.index.greatest
        end, boundary = top + 1, None
        view.begin(START, b"")
        while boundary is None and (numbers := self.index.before(end, PASS_STEPS)):
            found = await self._pass(backwards, numbers, view.manner.show)
            if self._touches(found.reached or 0, top):
                return
            boundary = found.boundary
            view.extend_backwards(found.texts)
            end = numbers[0] if found.reached is None else found.reached
        self.boundary = boundary or START
        view.end_backwards(self.boundary, self._lead(view.manner), top)
        view.built = True

    async def _extend(self, view: View, end: int) -> bool:
        while numbers := self.index.between((last := view.last) + 1, end, PASS_STEPS):
            self._disturbed.clear()
            found = await self._pass(
                partial(forwards, compactions=view.manner.history), numbers, view.manner.show
            )
            if view.suspect or view.last != last or found.reached is None:
                return False
            if self._touches(numbers[0], found.reached):
                return False
            if found.boundary is not None:
                self.boundary = found.boundary
                return False
            view.extend(found.texts)
            view.last = found.reached
        return True

    async def _compare(self, view: View, end: int, patient: bool) -> bool:
        """Make the view again, and see whether what it showed is a prefix of it (G13).

        Whether that came to an end: not where the history turned out to begin elsewhere, nor for
        the `patient` where a step was changed meanwhile.
        """
        self._disturbed.clear()
        draft = View(view.manner, self._cache)
        draft.opens = view.opens
        check = PrefixCheck(view)
        draft.begin(self._start(view.manner), self._lead(view.manner))
        check.feed(draft.lead)
        while numbers := self.index.between(draft.last + 1, end, PASS_STEPS):
            found = await self._pass(
                partial(forwards, compactions=view.manner.history), numbers, view.manner.show
            )
            disturbed = patient and self._touches(0, found.reached or 0)
            if found.reached is None or found.boundary is not None or disturbed:
                self.boundary = found.boundary or self.boundary
                self._cache.drop(draft)
                view.suspect = True
                return False
            for text in found.texts:
                check.feed(text.text)
            draft.extend(found.texts)
            draft.last = found.reached
        draft.built = True
        if check.passed:
            view.adopt(draft)
        else:
            self._supersede(view, draft)
        self.view(view.manner).suspect = self._touches(0, end)
        return True

    def _supersede(self, view: View, successor: View) -> None:
        # Its text stays while there is room: an open that looked it up just now may still come.
        view.superseded = True
        successor.opens = 0
        self._cache.unpinned(successor)
        self.views[view.manner.name] = successor

    def _dated(self, view: View) -> View:
        number = view.last_shown or view.boundary.number
        if number == view.dated:
            return view
        name = self.index.names(number)[-1] if number else "meta"
        try:
            view.mtime_ns = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            return view
        view.dated = number
        return view

    def _render(self, view: View, segment: Segment, odd: dict[int, list[str]]) -> bytes:
        if not segment.shown:
            return view.lead
        found = forwards(self.reader, segment.shown, odd, view.manner.show, False)
        return b"".join(part.text for part in found.texts)

    def _touched(self, number: int) -> None:
        super()._touched(number)
        for view in self.views.values():
            if number > view.last or (view.manner.history and number < view.boundary.number):
                continue
            if number > view.last_shown:
                view.last = max(number - 1, view.boundary.number)
            else:
                view.suspect = True

    def _forget_contents(self) -> None:
        super()._forget_contents()
        for view in self.views.values():
            view.suspect = view.built

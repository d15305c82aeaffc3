"""A real mount, an outside writer and readers that hold files open, driven at random.

After each step, every open must show exactly the model's state, every stat that state or one at most
a second old, every open file all that its inode ever showed, and inodes must follow the rule (G13).
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.commands import clear
from tests.support.far import NO_BINDFS, bound
from tests.support.model import VIEWS, Past, breaks
from tests.support.mounted import Mount, mounted
from tests.support.stores import SessionOnDisk, StoreOnDisk, compaction, entry, event

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
STALE_SECONDS = 1.1
SLUGS = ("crab_tg-42_1", "crab_tg-42_2", "crab_x_1")
slugs = st.sampled_from([SLUGS[0], SLUGS[0], SLUGS[0], *SLUGS])
views = st.sampled_from(VIEWS)
texts = st.sampled_from(["a", "two\nlines", "ü ² 🦀", "x" * 5000, ""])
broken = st.sampled_from([b"", b"{", b"[]", b'{"message":1}', b"\xff", b'{"other":1}'])
steps = st.one_of(
    st.builds(entry, texts),
    st.builds(entry, texts, st.just("assistant")),
    st.builds(event, texts),
    broken,
)


@dataclass
class Handle:
    """An open file: what it showed, and the states that it may have shown since."""

    fd: int
    past: Past
    view: str
    mark: int
    seen: bytes
    ino: int


@dataclass
class Seen:
    """What a name was last seen to show."""

    ino: int
    mark: int


@dataclass
class Known:
    """What the reader knows of one session that exists."""

    past: Past
    seen: dict[str, Seen] = field(default_factory=dict)


class World(RuleBasedStateMachine):
    """One store, one mount of it."""

    options: tuple[str, ...] = ("sync=never",)

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="stepfs-model-"))
        self.watchdog = threading.Timer(100, clear, [self.place])
        self.watchdog.start()
        self.store = StoreOnDisk(self.place / "store")
        self.known: dict[str, Known] = {}
        self.handles: list[Handle] = []
        self.stack = ExitStack()
        self.mount: Mount
        self.appended: set[bytes] = set()
        """The steps that the mount has stored."""
        self.texts = 0
        self.changes = 0
        """Number of changes since the last start of the mount."""

    @initialize(data=st.lists(steps, max_size=6))
    def begin(self, data: list[bytes]) -> None:
        self._made(self.store.session(SLUGS[0], *data))
        self._made(self.store.session(SLUGS[1]))
        self._mount()

    def teardown(self) -> None:
        try:
            for handle in self.handles:
                os.close(handle.fd)
            self.handles = []
            self.stack.close()
        finally:
            self.watchdog.cancel()
            clear(self.place)
            shutil.rmtree(self.place, ignore_errors=True)

    # --- the outside writer ----------------------------------------------------------------------

    @rule(slug=slugs, step=steps, gap=st.sampled_from([1, 1, 1, 3]))
    def another_writes(self, slug: str, step: bytes, gap: int) -> None:
        self._change(slug, lambda s: s.put(max(s.numbers(), default=0) + gap, self._own(step)))

    @rule(slug=slugs, data=st.lists(steps, min_size=3, max_size=30))
    def another_writes_many(self, slug: str, data: list[bytes]) -> None:
        for step in data:
            self._change(slug, lambda s, step=step: s.add(self._own(step)))  # type: ignore[misc]

    @rule(slug=slugs)
    def another_compacts(self, slug: str) -> None:
        self._change(slug, lambda s: s.add(compaction(f"outside-{len(s.numbers())}")))

    @rule(slug=slugs, step=steps, look=st.booleans())
    def another_writes_in_place(self, slug: str, step: bytes, look: bool) -> None:
        """As `>` and cp do: the step is first empty, then partial, then complete."""
        known = self.known.get(slug)
        if known is None:
            return
        session, step = known.past.session, self._own(step)
        name = session.path / f"step-{max(session.numbers(), default=0) + 1:06}"
        with name.open("xb", buffering=0) as file:
            known.past.note()
            if look:
                self.every_name_shows_what_the_store_holds()
            file.write(step[: len(step) // 2])
            known.past.note()
            if look:
                self.every_name_shows_what_the_store_holds()
            file.write(step[len(step) // 2 :])
            known.past.note()

    @rule(slug=slugs, step=steps, at=st.integers(0, 40))
    def another_replaces(self, slug: str, step: bytes, at: int) -> None:
        def replace(session: SessionOnDisk) -> None:
            numbers = self._replaceable(session)
            if numbers:
                temporary = session.path / "edited"
                temporary.write_bytes(step)
                temporary.rename(session.path / f"step-{numbers[at % len(numbers)]:06}")

        self._change(slug, replace)

    @rule(slug=slugs, at=st.integers(0, 40))
    def another_replaces_by_the_same(self, slug: str, at: int) -> None:
        def replace(session: SessionOnDisk) -> None:
            if numbers := session.numbers():
                number = numbers[at % len(numbers)]
                temporary = session.path / "edited"
                temporary.write_bytes(session.step(number))
                temporary.rename(session.path / f"step-{number:06}")

        self._change(slug, replace)

    @rule(slug=slugs, at=st.integers(0, 40))
    def another_removes(self, slug: str, at: int) -> None:
        def remove(session: SessionOnDisk) -> None:
            if numbers := session.numbers():
                (session.path / f"step-{numbers[at % len(numbers)]:06}").unlink()

        self._change(slug, remove)

    @rule(
        slug=slugs, step=st.one_of(steps, st.just(compaction("back-filled"))), at=st.integers(0, 40)
    )
    def another_fills_back(self, slug: str, step: bytes, at: int) -> None:
        def fill(session: SessionOnDisk) -> None:
            numbers = session.numbers()
            if free := sorted(set(range(1, max(numbers, default=0))) - set(numbers)):
                session.put(free[at % len(free)], self._own(step))

        self._change(slug, fill)

    @rule(slug=slugs, data=st.lists(steps, max_size=4))
    def another_makes_a_session(self, slug: str, data: list[bytes]) -> None:
        if slug not in self.known:
            self._made(self.store.session(slug, *data))

    @rule(slug=slugs)
    def another_deletes_a_session(self, slug: str) -> None:
        known = self.known.pop(slug, None)
        if known is not None:
            (known.past.session.path / "meta").unlink()
            known.past.session.delete()

    # --- through the mount -------------------------------------------------------------------------

    @rule(slug=slugs, data=st.lists(st.builds(entry, texts) | st.builds(event, texts), max_size=8))
    def somebody_appends(self, slug: str, data: list[bytes]) -> None:
        lines = b"".join(self._own(step).replace(b"\n", b" ") + b"\n" for step in data)
        append = self.mount.path / slug / "append"
        if slug not in self.known:
            self._is_missing(lambda: append.write_bytes(lines or b"{}"))
            return
        known = self.known[slug]
        append.write_bytes(lines)
        self.appended.update(lines.splitlines())
        stored = b"".join(step + b"\n" for step in known.past.session.steps()[-len(data) :])
        assert not data or stored == lines
        known.past.note()

    @rule(slug=slugs)
    def somebody_compacts(self, slug: str) -> None:
        compact = self.mount.path / slug / "compact"
        if slug not in self.known:
            self._is_missing(lambda: compact.write_text("archive\n"))
            return
        self.texts += 1
        compact.write_text(f"inside-{self.texts}\n")
        assert compact.read_text() == f"inside-{self.texts}\n"
        self.known[slug].past.note()

    @rule(slug=slugs)
    def somebody_makes_a_session(self, slug: str) -> None:
        try:
            (self.mount.path / slug).mkdir()
        except FileExistsError:
            assert slug in self.known
        else:
            assert slug not in self.known
            self._made(SessionOnDisk(self.store.path / slug))

    @rule(slug=slugs)
    def somebody_deletes_a_session(self, slug: str) -> None:
        if self.known.pop(slug, None) is None:
            self._is_missing((self.mount.path / slug).rmdir)
        else:
            (self.mount.path / slug).rmdir()

    # --- readers -----------------------------------------------------------------------------------

    @rule(slug=slugs, view=views)
    def a_reader_opens(self, slug: str, view: str) -> None:
        known = self.known.get(slug)
        if known is not None and len(self.handles) < 12:
            fd = os.open(self.mount.path / slug / view, os.O_RDONLY)
            expected = known.past.now(view)
            handle = Handle(
                fd, known.past, view, known.past.count(view), expected, os.fstat(fd).st_ino
            )
            self.handles.append(handle)
            self._read(handle)

    @precondition(lambda self: self.handles)
    @rule(at=st.integers(0, 11))
    def a_reader_closes(self, at: int) -> None:
        os.close(self.handles.pop(at % len(self.handles)).fd)

    @rule(slug=slugs, view=views)
    def somebody_asks_for_the_size(self, slug: str, view: str) -> None:
        known = self.known.get(slug)
        if known is not None:
            size = (self.mount.path / slug / view).stat().st_size
            assert size in {len(text) for text in known.past.lately(view, STALE_SECONDS)}

    @rule()
    def time_passes(self) -> None:
        time.sleep(0.03)

    @precondition(lambda self: self.changes > 8)
    @rule()
    def the_mount_is_restarted(self) -> None:
        self._drop_handles()
        self.stack.close()
        self._mount()

    @precondition(lambda self: self.changes > 8)
    @rule()
    def the_mount_is_killed(self) -> None:
        self.mount.kill()
        self._drop_handles()
        self.mount.start()
        self._begin_anew()

    # --- what must hold after each step -------------------------------------------------------------

    @invariant()
    def every_name_shows_what_the_store_holds(self) -> None:
        if not hasattr(self, "mount"):
            return
        path = self.mount.path
        for slug in SLUGS:
            known = self.known.get(slug)
            if known is None:
                self._is_missing(lambda slug=slug: os.open(path / slug / VIEWS[0], os.O_RDONLY))  # type: ignore[misc]
                continue
            for view in VIEWS:
                fd = os.open(path / slug / view, os.O_RDONLY)
                try:
                    text = os.read(fd, 1 << 20)
                    ino = os.fstat(fd).st_ino
                finally:
                    os.close(fd)
                assert text == known.past.now(view), f"{slug}/{view}"
                self._inode_follows_the_rule(known, view, ino)
        assert {name for name in os.listdir(path) if name != ".stepfs"} == set(self.known)

    @invariant()
    def every_open_file_shows_what_its_inode_showed(self) -> None:
        for handle in self.handles:
            self._read(handle)

    def _read(self, handle: Handle) -> None:
        text = os.pread(handle.fd, 1 << 20, 0)
        assert text.startswith(handle.seen)
        assert text in handle.past.since(handle.view, handle.mark)
        found = os.fstat(handle.fd)
        assert found.st_ino == handle.ino
        assert found.st_size in {
            len(text) for text in handle.past.since(handle.view, handle.mark) if text
        } | {len(handle.seen)}
        handle.seen = text
        known = self.known.get(handle.past.session.slug)
        if known is not None and known.past is handle.past and handle.view in known.seen:
            last = known.seen[handle.view]
            if last.ino == handle.ino and last.mark == handle.past.count(handle.view):
                assert text == handle.past.now(handle.view)

    def _inode_follows_the_rule(self, known: Known, view: str, ino: int) -> None:
        before = known.seen.get(view)
        if before is not None:
            states = known.past.since(view, before.mark)
            if not states[-1].startswith(states[0]):
                assert ino != before.ino, f"{view} shows what it must not"
            elif not breaks(states):
                assert ino == before.ino, f"{view} showed a prefix, and has a new inode"
        known.seen[view] = Seen(ino, known.past.count(view))

    # --- how it is done -----------------------------------------------------------------------------

    def _mount(self) -> None:
        self.mount = self.stack.enter_context(
            mounted(self._as_seen_by_it(), self.place, *self.options, check=False)
        )
        self._begin_anew()

    def _as_seen_by_it(self) -> Path:
        """The store as seen by the mounting host."""
        return self.store.path

    def _replaceable(self, session: SessionOnDisk) -> list[int]:
        """The numbers of steps that may be replaced without being restored by the mount."""
        return session.numbers()

    def _begin_anew(self) -> None:
        self.changes = 0
        for known in self.known.values():
            known.seen.clear()

    def _drop_handles(self) -> None:
        for handle in self.handles:
            with suppress(OSError):
                os.close(handle.fd)
        self.handles = []

    def _made(self, session: SessionOnDisk) -> None:
        self.known[session.slug] = Known(Past(session))

    def _change(self, slug: str, change: Callable[[SessionOnDisk], object]) -> None:
        known = self.known.get(slug)
        if known is not None:
            change(known.past.session)
            known.past.note()
            self.changes += 1

    def _own(self, step: bytes) -> bytes:
        """The step with a unique text, so that no two states look the same."""
        self.texts += 1
        return step.replace(b'"content":"', b'"content":"%d ' % self.texts, 1)

    @staticmethod
    def _is_missing(use: Callable[[], object]) -> None:
        with pytest.raises(OSError) as refused:
            use()
        assert refused.value.errno == errno.ENOENT


class WorldWithLittleMemory(World):
    """The same, with almost no text kept in memory."""

    options = ("sync=never", "cache=4K")


class WorldOfAnotherHost(World):
    """The same, where no events tell the mount about changes by others."""

    def _as_seen_by_it(self) -> Path:
        return self.stack.enter_context(bound(self.store.path, self.place / "bound"))

    def _replaceable(self, session: SessionOnDisk) -> list[int]:
        # Without events, a step of this mount that another program replaced is stored again (G16).
        return [n for n in session.numbers() if session.step(n) not in self.appended]


WORLDS = [World, WorldWithLittleMemory, pytest.param(WorldOfAnotherHost, marks=NO_BINDFS)]
SHORT = settings(
    max_examples=10,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.timeout(300)
@pytest.mark.guarantee("G12a", "G12b", "G12d", "G13a", "G13b", "G13c", "G15b", "G18a", "G18b")
@pytest.mark.parametrize("world", WORLDS)
def test_everything_that_is_read_is_explained_by_the_model(world: type[World]) -> None:
    run_state_machine_as_test(world, settings=SHORT)


@pytest.mark.soak
@pytest.mark.guarantee("G12a", "G12b", "G12d", "G13a", "G13b", "G13c", "G15b", "G18a", "G18b")
@pytest.mark.parametrize("world", WORLDS)
def test_everything_that_is_read_is_explained_by_the_model_for_long(world: type[World]) -> None:
    ends = time.monotonic() + 60 * float(os.environ.get("SOAK_MINUTES", "30")) / 4
    long = settings(SHORT, max_examples=20, stateful_step_count=80, derandomize=False)
    while time.monotonic() < ends:
        run_state_machine_as_test(world, settings=long)

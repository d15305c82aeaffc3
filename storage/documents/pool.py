"""Worker processes for long documents: a deadline, a memory limit, and none that is idle for long.

Parsing keeps the interpreter lock, so a thread would not keep a long document from holding up the
loop; and what a document does to a process (memory by the gigabyte, a crash in the parser) must not
be done to the one that serves. A worker is started for the first long document, ends when there was
none for a while, and is killed when it is late.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from storage.documents import worker
from storage.errors import StoreError
from storage.formats.accept import WRAPPED
from storage.formats.kinds import NotAStep, Step
from storage.posix import write_all

if TYPE_CHECKING:  # imported when the first long document comes: most mounts never see one
    from pebble import ProcessPool

WORKERS: Final = 2
MEMORY_BYTES: Final = 2 << 30
"""Address space of a worker: enough for any line of 16 MiB, be it nothing but brackets."""
DEADLINE_SECONDS: Final = 6.0
"""For one document, from when a worker begins with it."""
TURN_SECONDS: Final = 2.0
"""For its turn to come and a worker to begin with it. Whoever waits is answered once these and the
deadline are over, whatever became of the worker: well within ten seconds, on a busy machine as well."""
TERMINATED_SECONDS: Final = 0.5
"""For a worker to end when it is told to; one that was stopped by a signal is killed then."""
IDLE_SECONDS: Final = 10.0
TASKS_MAX: Final = 500
"""Documents after which a worker is replaced by a new one."""

T = TypeVar("T")
Show = Callable[[Step, int, str], bytes | None]


class Documents:
    """Has long documents judged and rendered. Its calls block: they are for threads."""

    def __init__(self, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._deadline = deadline_seconds
        self._turns = threading.BoundedSemaphore(WORKERS)
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None
        self._retiring: list[threading.Thread] = []
        self._users = 0
        self._rest: threading.Timer | None = None
        self._closed = False
        self._closing = threading.Event()

    def judge(self, line: bytes) -> Step:
        """As `stored_form`; the value of the step is cut short.

        Raises `StoreError` as it does, and ETIMEDOUT or ENOMEM for a document that takes too long or
        too much.
        """
        with _file(line) as source:
            answer = self._run(worker.judge, _path(source))
        if isinstance(answer, worker.Refused):
            raise StoreError(answer.errno, answer.code, answer.sentence)
        kind, value, wrapped = answer
        return Step(kind, value, WRAPPED % line if wrapped else line)

    def meet(self, session_fd: int, name: str, flags: int, show: Show) -> tuple[Step, bytes | None]:
        """The step `name` and what `show`, a function of a module, makes of it.

        The step has its value cut short, and no data. Raises `NotAStep`, `OSError` as `read_step`,
        and `StoreError` as `judge`.
        """
        with _file(b"") as target:
            met = self._run(worker.meet, _path(session_fd), name, flags, show, _path(target))
            if isinstance(met, str):
                raise NotAStep(met)
            kind, value, length = met
            return Step(kind, value, b""), None if length < 0 else os.pread(target, length, 0)

    def close(self) -> None:
        """End the workers, whatever they are at."""
        with self._lock:
            self._closed = True
            if self._rest is not None:
                self._rest.cancel()
            pool, self._pool = self._pool, None
        self._closing.set()
        if pool is not None:
            _end(pool)
        for thread in self._retiring:
            thread.join()

    def _run(self, task: Callable[..., T], *args: Any) -> T:
        answered_at = time.monotonic() + TURN_SECONDS + self._deadline
        if not self._turns.acquire(timeout=TURN_SECONDS):
            raise _late("other long documents are being read: try again")
        try:
            return self._answer(task, args, answered_at)
        finally:
            self._turns.release()

    def _answer(self, task: Callable[..., T], args: tuple[Any, ...], answered_at: float) -> T:
        from concurrent.futures import CancelledError

        from pebble import ProcessExpired

        with self._started() as pool:
            future = pool.schedule(task, args=args, timeout=self._deadline)
            try:
                answer: T = future.result(timeout=answered_at - time.monotonic())
            except TimeoutError:
                future.cancel()  # type: ignore[no-untyped-call]
                self._retire(pool)
                seconds = f"{self._deadline:g} s"
                raise _late(f"the document is not read within {seconds}: make it shorter") from None
            except (MemoryError, ProcessExpired):
                raise _too_much() from None
            except (RuntimeError, CancelledError):  # it was closed meanwhile
                raise _ended() from None
            return answer

    @contextmanager
    def _started(self) -> Iterator[ProcessPool]:
        with self._lock:
            if self._closed:
                raise _ended()
            self._users += 1
            if self._rest is not None:
                self._rest.cancel()
            if self._pool is None or not self._pool.active:
                self._pool = _start()
            pool = self._pool
        try:
            yield pool
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and not self._closed:
                    self._rest = threading.Timer(IDLE_SECONDS, self._end_if_idle)
                    self._rest.daemon = True
                    self._rest.start()

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._users:
                return
            pool, self._pool = self._pool, None
        if pool is not None:
            _end(pool)

    def _retire(self, pool: ProcessPool) -> None:
        """Begin no more documents there: what made one worker late, as a signal that stops it, may have
        befallen the others, and a worker that is stopped between documents is waited for by all."""

        def end() -> None:
            self._closing.wait(self._deadline + TURN_SECONDS)  # others may be done in time
            _end(pool)

        with self._lock:
            if self._closed or self._pool is not pool:
                return
            self._pool = None
            self._retiring = [thread for thread in self._retiring if thread.is_alive()]
            self._retiring.append(threading.Thread(target=end, daemon=True))
            self._retiring[-1].start()


def _start() -> ProcessPool:
    from multiprocessing import get_context

    from pebble import CONSTS, ProcessPool

    CONSTS.term_timeout = TERMINATED_SECONDS
    # Not forked: a worker has none of the server's threads, memory and descriptors.
    return ProcessPool(
        max_workers=WORKERS,
        max_tasks=TASKS_MAX,
        initializer=worker.begin,
        initargs=(MEMORY_BYTES,),
        context=get_context("spawn"),
    )


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


@contextmanager
def _file(content: bytes) -> Iterator[int]:
    """An unnamed file in memory with that content."""
    fd = os.memfd_create("document", os.MFD_CLOEXEC)
    try:
        write_all(fd, content)
        yield fd
    finally:
        os.close(fd)


def _path(fd: int) -> str:
    """What a worker opens an open file of this process by."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def _late(sentence: str) -> StoreError:
    return StoreError(errno.ETIMEDOUT, "document-late", sentence)


def _too_much() -> StoreError:
    sentence = f"the document takes more than {MEMORY_BYTES >> 20} MiB of memory: make it shorter"
    return StoreError(errno.ENOMEM, "document-too-big", sentence)


def _ended() -> StoreError:
    return StoreError(errno.EINTR, "ending", "the mount is ending")

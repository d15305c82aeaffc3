"""Worker processes for long documents: each has a deadline and a memory limit, and none idles for long.

Parsing holds the GIL, so a thread would not keep a long document from stalling the loop; and what a
document can do to a process (take gigabytes of memory, crash the parser) must not happen to the
server. A worker is started for the first long document, ends after an idle period, and is killed when
it misses its deadline.
"""

from __future__ import annotations

import errno
import os
import resource
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
"""Limit of a worker's address space: enough for any line of 16 MiB, even nothing but brackets. The
server's own hard limit applies if it is lower."""
DEADLINE_SECONDS: Final = 6.0
"""Time for one document, from the moment a worker starts on it."""
TURN_SECONDS: Final = 2.0
"""Time for a document to get its turn and for a worker to start on it. A caller is answered when this
and the deadline have passed, whatever became of the worker: well within ten seconds even on a busy
machine."""
TERMINATED_SECONDS: Final = 0.5
"""Time for a worker to end after SIGTERM before it is killed, as one stopped by a signal must be."""
IDLE_SECONDS: Final = 10.0
TASKS_MAX: Final = 500
"""A worker is replaced after this many documents."""

T = TypeVar("T")
Show = Callable[[Step, int, str], bytes | None]


class Documents:
    """Judges and renders long documents in worker processes. Its calls block: call them in threads."""

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
        """Judge an appended line as `stored_form` does; the step's value is shortened.

        Raises `StoreError` as `stored_form` does, ETIMEDOUT (`"document-late"`) for a document that
        misses its deadline, ENOMEM (`"document-too-big"`) for one that exceeds the memory limit, and
        EINTR (`"ending"`) once this is closed.
        """
        with _file(line) as source:
            answer = self._run(worker.judge, _path(source))
        if isinstance(answer, worker.Refused):
            raise StoreError(answer.errno, answer.code, answer.sentence)
        kind, value, wrapped = answer
        return Step(kind, value, WRAPPED % line if wrapped else line)

    def meet(self, session_fd: int, name: str, flags: int, show: Show) -> tuple[Step, bytes | None]:
        """Read the step file `name` and render it with `show`, a module-level function.

        The step comes back with a shortened value and no data. Raises `NotAStep`, `OSError` as
        `read_step` does, and `StoreError` as `judge` does.
        """
        with _file(b"") as target:
            met = self._run(worker.meet, _path(session_fd), name, flags, show, _path(target))
            if isinstance(met, str):
                raise NotAStep(met)
            kind, value, length = met
            return Step(kind, value, b""), None if length < 0 else os.pread(target, length, 0)

    def close(self) -> None:
        """End the workers, whatever they are doing."""
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
                raise _late(f"reading the document took more than {seconds}: shorten it") from None
            except (MemoryError, SystemError, ProcessExpired):
                # orjson.loads does not stop at an allocation that fails: it goes through the rest of the
                # document, failing for every object, and raises SystemError at the end. A document with
                # millions of objects may reach its deadline before that, and is reported as late.
                raise _too_much() from None
            except (RuntimeError, CancelledError):  # the pool was closed meanwhile
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
        """Start no more documents in `pool`: what made one worker late (a stop signal, say) may have hit
        the others too, and a worker that is stopped between documents would make every caller wait."""

        def end() -> None:
            self._closing.wait(self._deadline + TURN_SECONDS)  # other documents may finish in time
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
    # Spawned, not forked: a worker inherits none of the server's threads, memory or descriptors.
    return ProcessPool(
        max_workers=WORKERS,
        max_tasks=TASKS_MAX,
        initializer=worker.begin,
        initargs=(_memory_bytes(),),
        context=get_context("spawn"),
    )


def _memory_bytes() -> int:
    """The address space that a worker may use: a process cannot exceed its inherited hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    return MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)


def _end(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


@contextmanager
def _file(content: bytes) -> Iterator[int]:
    """An anonymous file in memory that holds `content`."""
    fd = os.memfd_create("document", os.MFD_CLOEXEC)
    try:
        write_all(fd, content)
        yield fd
    finally:
        os.close(fd)


def _path(fd: int) -> str:
    """The path by which a worker opens this process's descriptor `fd`."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def _late(sentence: str) -> StoreError:
    return StoreError(errno.ETIMEDOUT, "document-late", sentence)


def _too_much() -> StoreError:
    """A worker that was killed for want of memory and one that failed to get it look the same."""
    most = _memory_bytes() >> 20
    sentence = f"the document needs too much memory, a worker gets at most {most} MiB: shorten it"
    return StoreError(errno.ENOMEM, "document-too-big", sentence)


def _ended() -> StoreError:
    return StoreError(errno.EINTR, "ending", "the mount is ending")

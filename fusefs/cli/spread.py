"""Work on many sessions, done by as many processes as may run.

They are forked and write what they found to a pipe each: a pool of the standard library takes as long
to load as searching a thousand sessions.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO, Final, NoReturn, TypeVar, cast

CHUNK_SESSIONS: Final = 128
"""Sessions handed to a process at a time."""
PROCESSES_MIN: Final = 8
"""Few processors have as many: a disk answers several readers sooner than one after the other."""
FEW_SESSIONS: Final = 256
"""Up to this many sessions no other process is started."""

Result = TypeVar("Result")


def spread(work: Callable[[Sequence[str]], Result], slugs: Sequence[str]) -> Iterator[Result]:
    """What `work` makes of some sessions at a time, in their order, as it comes.

    What it makes can be pickled, and so can what it raises, which is raised here. Raises `EOFError`
    if a process was killed. Where there is work for several, this process has one thread.
    """
    if len(slugs) <= FEW_SESSIONS:
        for slug in slugs:
            yield work([slug])
        return
    chunks = [slugs[at : at + CHUNK_SESSIONS] for at in range(0, len(slugs), CHUNK_SESSIONS)]
    processes = min(max(len(os.sched_getaffinity(0)), PROCESSES_MIN), len(chunks))
    with ExitStack() as running:
        workers = [
            running.enter_context(_worker(work, chunks[first::processes]))
            for first in range(processes)
        ]
        for number in range(len(chunks)):
            result, error = pickle.load(workers[number % processes])
            if error is not None:
                raise error
            yield cast(Result, result)


@contextmanager
def _worker(
    work: Callable[[Sequence[str]], Result], chunks: list[Sequence[str]]
) -> Iterator[BinaryIO]:
    """The results of a process of its own, pickled one after the other; it ends with the block."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _serve(work, chunks, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as results:
            yield results
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _serve(
    work: Callable[[Sequence[str]], Result], chunks: list[Sequence[str]], writing: int
) -> NoReturn:
    """Ctrl-C is for the process that was asked: it ends this one, or no longer reads."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(BrokenPipeError), open(writing, "wb", buffering=0) as results:
            for chunk in chunks:
                results.write(pickle.dumps(_answer(work, chunk)))
    finally:
        os._exit(0)  # what the other process has not yet written is not for this one to write


def _answer(
    work: Callable[[Sequence[str]], Result], chunk: Sequence[str]
) -> tuple[Result | None, Exception | None]:
    try:
        return work(chunk), None
    except Exception as error:
        return None, error

"""Spreads work on many sessions over as many processes as there are cores, but at least eight.

Workers are forked and each writes its results to a pipe: loading the standard library's process pool
would take as long as searching a thousand sessions.
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
"""More than many machines have cores: a disk serves several readers faster than a single one."""
FEW_SESSIONS: Final = 256
"""Up to this many sessions no other process is started."""

Result = TypeVar("Result")


def spread(work: Callable[[Sequence[str]], Result], slugs: Sequence[str]) -> Iterator[Result]:
    """Call `work` with some sessions at a time, and yield its results in the order of `slugs`.

    Its results and exceptions must be picklable; the latter are raised here. Raises `EOFError` if a
    worker was killed. With more than `FEW_SESSIONS` the calling process must have only one thread,
    since it forks.
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
    """Run a worker process within the block; yields the pipe with its pickled results."""
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
    """The worker's main function. It ignores Ctrl-C: its parent kills it, or stops reading."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(BrokenPipeError), open(writing, "wb", buffering=0) as results:
            for chunk in chunks:
                results.write(pickle.dumps(_answer(work, chunk)))
    finally:
        os._exit(0)  # without flushing the buffers that were inherited from the parent


def _answer(
    work: Callable[[Sequence[str]], Result], chunk: Sequence[str]
) -> tuple[Result | None, Exception | None]:
    try:
        return work(chunk), None
    except Exception as error:
        return None, error

"""The tasks that a worker process runs on one long document; see `storage.documents.pool`.

Documents and rendered text pass through files, which the server names by its own descriptors, so that
neither is pickled. The returned values are short whatever the document holds.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import threading
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple

from storage.errors import StoreError
from storage.formats.accept import stored_form
from storage.formats.kinds import Kind, NotAStep, Step, classify
from storage.posix import read_on, write_all
from storage.session.steps import STEP_BYTES_MAX, read_step

DIGEST_ITEMS: Final = 16
DIGEST_CHARACTERS: Final = 512
DIGEST_DEPTH: Final = 5
_TELLING: Final = ("message", "role", "content", "type", "agent")
"""Keys of a step's value that are still read after it was judged, so they are never cut away."""
NICENESS: Final = 5


class Refused(NamedTuple):
    """A `StoreError` in a form that pickles."""

    errno: int
    code: str
    sentence: str


Judged = tuple[Kind, dict[str, Any], bool]
"""The verdict on an appended line: its kind, its shortened value, and whether it is stored wrapped."""
Met = tuple[Kind, dict[str, Any], int]
"""A step that was read: its kind, its shortened value, and its text's length in bytes (-1: no text)."""


def begin(memory_bytes: int) -> None:
    """Set up a worker: limit its address space, make it the OOM killer's first choice, and end it
    when the server ends."""
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")
    with contextlib.suppress(OSError):  # a service may not be allowed to
        os.nice(NICENESS)
    # Values are trees; scanning millions of them for cycles would take most of the time. What a document
    # leaves in cycles is collected before the next one, when there is nothing else to scan.
    gc.disable()
    gc.freeze()
    threading.Thread(target=_end_with_the_server, daemon=True).start()


def judge(source: str) -> Judged | Refused:
    """Judge the line in the file `source`, as `stored_form` does."""
    gc.collect()
    line = _content(source)
    try:
        step = stored_form(line)
    except StoreError as error:
        return Refused(error.errno, error.code, error.sentence)
    return step.kind, _short(step), step.data is not line


def meet(
    directory: str,
    name: str,
    flags: int,
    show: Callable[[Step, int, str], bytes | None],
    target: str,
) -> Met | str:
    """Judge the step file `name` in `directory`, and write its text to the file `target`.

    Returns a sentence instead if the file is not a step. Raises `OSError` as `read_step` does.
    """
    gc.collect()
    session = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        step = classify(read_step(name, session, flags))
        text = show(step, session, name)
    except NotAStep as error:
        return error.sentence
    finally:
        os.close(session)
    if text is not None:
        _put(target, text)
    return step.kind, _short(step), -1 if text is None else len(text)


def _short(step: Step) -> dict[str, Any]:
    value: dict[str, Any] = digest(step.value)
    if step.kind is Kind.COMPACTION:
        value["archive_name"] = step.archive
    return value


def digest(value: Any, depth: int = 0) -> Any:
    """Shorten a value: keep its first members, items and characters, which show what it is."""
    if isinstance(value, str):
        return value[:DIGEST_CHARACTERS]
    if isinstance(value, dict):
        known = {key: value[key] for key in _TELLING if key in value}
        first = {**known, **dict(islice(value.items(), DIGEST_ITEMS))}
        deeper = first if depth < DIGEST_DEPTH else {}
        return {k[:DIGEST_CHARACTERS]: digest(item, depth + 1) for k, item in deeper.items()}
    if isinstance(value, list):
        first_items = value[:DIGEST_ITEMS] if depth < DIGEST_DEPTH else []
        return [digest(item, depth + 1) for item in first_items]
    return value


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return read_on(file.fileno(), file.read(1 << 20), STEP_BYTES_MAX)


def _put(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        write_all(fd, text)
    finally:
        os.close(fd)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(what, (most, hard))


def _end_with_the_server() -> None:
    from multiprocessing import connection, parent_process

    server = parent_process()
    if server is not None:
        connection.wait([server.sentinel])
        os._exit(1)

"""Whether remembered steps still have their names: who lost it to another file is displaced (G16).

For any thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from fusefs.session.step_table import Remembered
from storage.session.claims import step_identity
from storage.session.steps import read_step, step_name


def identity(session_fd: int, step: Remembered) -> int | None:
    """That of the file that has the name of `step`, None if there is none. Raises `OSError`."""
    name = step_name(step.number)
    try:
        return step_identity(os.stat(name, dir_fd=session_fd, follow_symlinks=False))
    except FileNotFoundError:
        return None


def look(session_fd: int, steps: Sequence[Remembered]) -> tuple[list[Remembered], list[Remembered]]:
    """Those whose names are gone, and those whose names other files have, or edited ones.

    Raises `OSError` where a name cannot be looked at.
    """
    gone, others = [], []
    for step in steps:
        found = identity(session_fd, step)
        if found is None:
            gone.append(step)
        elif found != step.identity:
            others.append(step)
    return gone, others


def compare(
    session_fd: int, steps: Sequence[Remembered], texts: Sequence[bytes | None]
) -> tuple[list[Remembered], list[Remembered]]:
    """Those whose names are gone by now, and those that other files have with the same contents, each
    with the identity of that file. `texts` are what the steps hold, None where that is not known.

    Raises `OSError` where a name cannot be looked at; a file that cannot be read is another.
    """
    gone, same = [], []
    for step, text in zip(steps, texts, strict=True):
        name, found = step_name(step.number), identity(session_fd, step)
        try:
            if found is None:
                gone.append(step)
            elif text and read_step(name, session_fd) == text:
                same.append(step._replace(identity=found))
        except FileNotFoundError:
            gone.append(step)
        except OSError:
            continue  # whatever it is, it is not the step
    return gone, same

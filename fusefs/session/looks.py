"""Checks whether the names of remembered steps still belong to their files (G16). For any thread.

A step whose name belongs to another file is displaced.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from fusefs.session.step_table import Remembered
from storage.session.steps import read_step, step_identity, step_name


def identity(session_fd: int, step: Remembered) -> int | None:
    """The identity of the file that has the name of `step`; None if there is none. Raises `OSError`."""
    name = step_name(step.number)
    try:
        return step_identity(os.stat(name, dir_fd=session_fd, follow_symlinks=False))
    except FileNotFoundError:
        return None


def look(session_fd: int, steps: Sequence[Remembered]) -> tuple[list[Remembered], list[Remembered]]:
    """Return the steps whose names are gone, and those whose names have another or an edited file.

    Raises `OSError` if a name cannot be examined.
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
    """Return the steps whose names are gone, and those whose names have a file with the same content,
    each with the identity of that file. `texts` are the steps' contents, None if unknown.

    Raises `OSError` if a name cannot be examined; a file that cannot be read counts as different.
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
            continue  # whatever this file is, it is not the step
    return gone, same

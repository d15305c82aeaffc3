"""Surveys a session: which of its steps are compactions, and thus which epochs it has had (G29).

The first survey examines all steps; later ones only steps that were added or have changed.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Final

from fusefs.session.means import Means
from fusefs.session.session import Session
from storage.errors import from_os_error, printable
from storage.session.epochs import compactions

AGAIN_MOST: Final = 8
"""How often a step is examined again that keeps changing; then the last result counts until the next
survey."""


async def survey(means: Means, session: Session) -> None:
    """Find the compactions among the indexed steps. Raises `StoreError`.

    Does not hold `Session.lock`, so the history can be read at the same time.
    """
    async with session.surveying:
        again: Counter[int] = Counter()
        while look := session.extents.compactions.next_pass(session.index):
            work = partial(compactions, numbers=look.numbers, odd=dict(session.index.odd))
            try:
                seen = await means.replay(session, len(look.numbers), work)
            except OSError as error:
                session.extents.compactions.failed(look)
                raise from_os_error(error, f"read {printable(session.slug)}") from error
            except BaseException:
                session.extents.compactions.failed(look)
                raise
            means.events.drain()  # steps that changed during the pass are examined again
            session.extents.compactions.found(look, seen)
            if look.again:
                again.update(look.numbers[: seen.steps])
                if max(again.values()) >= AGAIN_MOST:
                    return

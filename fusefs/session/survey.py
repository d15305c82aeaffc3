"""Surveying a session: which of its steps are compactions, and so which epochs it has had (G29).

All steps are looked at once, when somebody first asks; after that only those that came or changed.
"""

from __future__ import annotations

from functools import partial

from fusefs.session.means import Means
from fusefs.session.session import Session
from storage.errors import from_os_error, printable
from storage.session.epochs import compactions


async def survey(means: Means, session: Session) -> None:
    """Know the compactions among the indexed steps. Raises `StoreError`.

    It takes a turn of its own: the history is shown meanwhile.
    """
    async with session.surveying:
        while (look := session.extents.compactions.next_pass(session.index)) is not None:
            work = partial(compactions, numbers=look.numbers, odd=dict(session.index.odd))
            try:
                seen = await means.replay(session, len(look.numbers), work)
            except OSError as error:
                session.extents.compactions.failed(look)
                raise from_os_error(error, f"read {printable(session.slug)}") from error
            except BaseException:
                session.extents.compactions.failed(look)
                raise
            means.events.drain()  # what changed meanwhile is looked at again
            session.extents.compactions.found(look, seen)

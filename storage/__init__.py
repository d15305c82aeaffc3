"""The store: a directory of chat sessions, one file per step.

This package knows files and nothing of the kernel's file system interface. It is synchronous and
imports neither trio nor pyfuse3; whoever calls it decides which thread may block.

What is exported here is for programs that work with a store without a mount; `storage.library`
explains it with an example. A refusal or failure is a `StoreError`, with an errno, a code word and
one sentence; ERROR CODES in stepfs(5) has the codes.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.errors import StoreError
    from storage.formats.kinds import Kind, Step
    from storage.library import (
        SessionSummary,
        append_compaction,
        append_entries,
        append_events,
        count_epochs,
        create_session,
        delete_session,
        find_latest_session,
        fork_session,
        list_sessions,
        load_epoch,
        load_session,
        open_store,
        update_meta,
    )
    from storage.session.snapshot import Snapshot
    from storage.store import Store

__all__ = [
    "Kind",
    "SessionSummary",
    "Snapshot",
    "Step",
    "Store",
    "StoreError",
    "append_compaction",
    "append_entries",
    "append_events",
    "count_epochs",
    "create_session",
    "delete_session",
    "find_latest_session",
    "fork_session",
    "list_sessions",
    "load_epoch",
    "load_session",
    "open_store",
    "update_meta",
]

_ELSEWHERE = {
    "Kind": "formats.kinds",
    "Snapshot": "session.snapshot",
    "Step": "formats.kinds",
    "Store": "store",
    "StoreError": "errors",
}
"""Where a name is defined if not in `library`."""


def __getattr__(name: str) -> object:
    """Load what is asked for: commands that need little of this package start in half the time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'library')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

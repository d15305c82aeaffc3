"""What a session needs from the part of the mount that watches the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fusefs.session.session import Session


class Events(Protocol):
    """The events of the store, and the set of dirty sessions. No method waits."""

    root_changed_at: float | None
    """When the list of sessions last changed, on trio's clock; None if there are no events for it."""

    def watch(self, session: Session) -> None:
        """Watch an open session: its `apply` is called with each change, if the store has events."""

    def unwatch(self, session: Session) -> None:
        """End the watch of a session."""

    def drain(self) -> None:
        """Apply all queued events to their sessions."""

    def follow(self, session: Session) -> None:
        """Somebody waits for changes of a session: poll for them if there are no events."""

    def stored(self, slug: str) -> None:
        """This mount stored something in a session, or created or deleted it: hint other mounts."""

    def mark(self, session: Session) -> None:
        """Mark a session dirty: something about it must be published or done."""

    def owes(self, session: Session) -> bool:
        """Whether a session is dirty."""

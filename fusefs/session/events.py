"""What a session needs of whoever watches the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fusefs.session.session import Session


class Events(Protocol):
    """The events of the store, and the sessions that something happened in. Nothing in it waits."""

    root_changed_at: float | None
    """When the list of sessions last changed, on trio's clock; None where nothing would tell."""

    def watch(self, session: Session) -> None:
        """Have `apply` of an open session called with what happens in its directory, if that can be."""

    def unwatch(self, session: Session) -> None:
        """End the watch of a session."""

    def drain(self) -> None:
        """Apply all queued events to their sessions."""

    def follow(self, session: Session) -> None:
        """Somebody waits for changes of a session: poll for them where there are no events."""

    def stored(self, slug: str) -> None:
        """This mount stored something in a session, or made or deleted it: others are to be hinted."""

    def mark(self, session: Session) -> None:
        """Something happened in a session, or is to be done for it, that must be published."""

    def owes(self, session: Session) -> bool:
        """Whether something is still to be published of a session."""

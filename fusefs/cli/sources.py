"""How commands read sessions: from a store's files, or through a mount.

Both implement the same interface, so that commands need not tell them apart.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from fusefs.cli.places import META_SHOWN, Place
from fusefs.cli.stores import META
from fusefs.exits import CommandError, Exit
from storage.archives import Memory
from storage.errors import StoreError, printable
from storage.formats.jsontext import NotJSON, parse
from storage.render import markdown
from storage.render.jsonl import log_line
from storage.session import for_people, snapshot
from storage.session.index import scan
from storage.session.reader import NO_STEP, Reader
from storage.session.steps import step_name
from storage.store import Store

HISTORY: Final = "history.jsonl"
LOG: Final = "log.jsonl"
MARKDOWN: Final = "history.md"
SESSIONS: Final = ".stepfs/sessions.jsonl"

Meta = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """A session and its meta; `changed` is the time of its last change, in seconds since 1970."""

    slug: str
    meta: Meta
    changed: float

    def text(self, key: str) -> str:
        """The string at `key` of the meta; `""` if there is none."""
        value = self.meta.get(key, "")
        return value if isinstance(value, str) else ""

    @property
    def messages(self) -> int:
        """The message count in the meta."""
        count = self.meta.get("message_count", 0)
        return count if isinstance(count, int) else 0

    def document(self) -> dict[str, object]:
        """The object for `--json`: as in `sessions.jsonl`, and the time of the last change."""
        from fusefs.cli.times import rfc3339

        return {"session": self.slug, "changed_at": rfc3339(self.changed), **self.meta}


class Source(ABC):
    """The sessions below `root`, a store or a mount. All methods raise `OSError` or `StoreError`."""

    meta_name: str

    def __init__(self, root: str) -> None:
        self.root = root

    @abstractmethod
    def slugs(self) -> list[str]:
        """The names of all sessions, in no particular order."""

    @abstractmethod
    def history_lines(self, slug: str) -> Iterator[bytes]:
        """The lines of `history.jsonl`, each with its newline."""

    @abstractmethod
    def steps(self, slug: str) -> Iterator[bytes]:
        """The content of every step, also before the last compaction; a store also yields files that
        are not steps."""

    @abstractmethod
    def history_markdown(self, slug: str) -> Iterator[str]:
        """The text of `history.md`, in pieces that end between two entries."""

    def summaries(self) -> Iterator[Summary]:
        """All sessions, except those deleted in the meantime or unreadable for this user.

        A broken meta counts as empty.
        """
        for slug in self.slugs():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                yield self.summary(slug)

    def summary(self, slug: str) -> Summary:
        """One session's summary. Raises `OSError`."""
        directory = os.path.join(self.root, slug)
        changed = os.stat(directory).st_mtime
        with open(os.path.join(directory, self.meta_name), "rb") as file:
            return Summary(slug, _object(file.read()), changed)


class Mounted(Source):
    """Sessions read through a mount."""

    meta_name = META_SHOWN

    def slugs(self) -> list[str]:
        return [name for name in os.listdir(self.root) if name[0] != "."]

    def summaries(self) -> Iterator[Summary]:
        """Read from `sessions.jsonl`, or one by one if this user may not read that."""
        try:
            with open(os.path.join(self.root, SESSIONS), "rb") as file:
                lines = file.readlines()
        except PermissionError:
            yield from super().summaries()
            return
        names = {printable(name): name for name in self.slugs()}  # as the lines have them
        for line in lines:
            meta = _object(line)
            slug = names.get(meta.pop("session"))
            if slug is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                yield Summary(slug, meta, os.stat(os.path.join(self.root, slug)).st_mtime)

    def history_lines(self, slug: str) -> Iterator[bytes]:
        with open(os.path.join(self.root, slug, HISTORY), "rb") as file:
            yield from file

    def steps(self, slug: str) -> Iterator[bytes]:
        with open(os.path.join(self.root, slug, LOG), "rb") as file:
            yield from file

    def history_markdown(self, slug: str) -> Iterator[str]:
        with open(os.path.join(self.root, slug, MARKDOWN), encoding="utf-8", newline="\n") as file:
            yield file.read()


class Stored(Source):
    """Sessions read from the files of a store."""

    meta_name = META

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.store = Store(root)

    def slugs(self) -> list[str]:
        return self.store.names()

    def history_lines(self, slug: str) -> Iterator[bytes]:
        with self.store.opened(slug) as directory:
            _, entries = snapshot.history(directory)
            for _number, step in entries:
                yield log_line(step)

    def steps(self, slug: str) -> Iterator[bytes]:
        with self.store.opened(slug) as directory:
            index = scan(directory)
            names = [name for number in index.numbers for name in index.names(number)]
            read = Reader(directory).ahead(names)
            for name in names:
                try:
                    yield read(name)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno not in NO_STEP:
                        raise

    def history_markdown(self, slug: str) -> Iterator[str]:
        with self.store.opened(slug) as directory:
            archive, entries = snapshot.history(directory)
            head = for_people.head(directory, slug)
            if archive is not None:
                text = Memory.beside(self.root).text(archive)
                yield (head + markdown.archive(archive, text)).decode()
                head = b""
            for number, step in entries:
                section = for_people.entry(step, directory, step_name(number)) or b""
                yield (head + section).decode()
                head = b""


def source_of(place: Place) -> Source:
    """The source for the sessions of `place`. Raises `CommandError`."""
    try:
        return Mounted(place.root) if place.is_mount else Stored(place.root)
    except StoreError as error:
        raise CommandError(Exit.STORE, error.sentence) from None


@contextlib.contextmanager
def told_if_unreadable(place: Place) -> Iterator[None]:
    """Within the context, a missing or unreadable file raises `CommandError` with a sentence."""
    try:
        yield
    except FileNotFoundError:
        raise CommandError(
            Exit.NOT_STEPFS, f"there is no session {printable(place.session or place.root)}"
        ) from None
    except PermissionError as error:
        where = printable(str(error.filename or place.directory))
        raise CommandError(Exit.STORE, f"you may not read {where}") from None


def _object(data: bytes) -> Meta:
    try:
        value = parse(data)
    except (NotJSON, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}

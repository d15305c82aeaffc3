"""`.stepfs`: what the mount tells of itself and of all sessions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import trio

from fusefs.catalogue.catalogue import Catalogue
from fusefs.catalogue.lines import Text
from fusefs.dotdir.guide import GUIDE
from fusefs.failures import Failures
from fusefs.handles.base import OpenFile, OpenText
from fusefs.inodes.attributes import Rights, Rules
from storage.store import Store

DIRECTORY: Final = ".stepfs"
LATEST: Final = "latest"
STEPS: Final = "steps"
"""Not listed: the numbers of the steps behind the lines of a view, for `stepfs follow`."""
DIRECTORIES: Final = frozenset({DIRECTORY, LATEST, STEPS})
PRIVATE: Final = frozenset({"sessions.jsonl", "status.json", "errors.jsonl"})
"""They tell of all sessions, and are the mounting user's alone (G21)."""
FILES: Final = ("README", "sessions.jsonl", LATEST, "create", "status.json", "errors.jsonl")
SETTLING: Final = 2.0
STATUS_SIZE: Final = 8192
"""`status.json` is padded to this size, so that an archiver sees no file change while it reads."""


class OpenErrors(OpenFile):
    """`errors.jsonl`: as of its open, and what came after for who reads on."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._text = failures.text()
        self._count = failures.count

    async def read(self, offset: int, size: int) -> bytes:
        if offset + size > len(self._text):
            self._text += self._failures.since(self._count)
            self._count = self._failures.count
        return self._text[offset : offset + size]


class OpenSessions(OpenFile):
    """`sessions.jsonl`, as of its open."""

    def __init__(self, text: Text) -> None:
        self._text = text

    async def read(self, offset: int, size: int) -> bytes:
        return self._text.read(offset, size)


class Hidden:
    """The files of `.stepfs` and who may read them. Loop-owned; listings run in threads."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        failures: Failures,
        catalogue: Catalogue,
        report: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._store = store
        self._rules = rules
        self._failures = failures
        self._catalogue = catalogue
        self._report = report

    def names(self, everything: bool) -> list[str]:
        """What a listing shows: without `everything` only what is not the mounting user's alone."""
        return [name for name in FILES if everything or name not in PRIVATE]

    def rights(self, name: str) -> Rights:
        """Owner and permission bits of a name, `.stepfs` itself included."""
        root = os.fstat(self._store.fd)
        if name in PRIVATE:
            return self._rules.private()
        if name == "create":
            return self._rules.append(root)
        return self._rules.public(root, directory=name in DIRECTORIES)

    async def size(self, name: str) -> int:
        """The size in bytes that stat is told, as exact as the contents are constant."""
        if name == "status.json":
            return STATUS_SIZE
        if name == "create":
            return 0
        if name == "sessions.jsonl":
            return len(await self._catalogue.text())
        return len(self._text(name))

    async def open(self, name: str) -> OpenFile:
        """An open file for reading."""
        if name == "errors.jsonl":
            return OpenErrors(self._failures)
        if name == "sessions.jsonl":
            return OpenSessions(await self._catalogue.text())
        return OpenText(self._text(name))

    def _text(self, name: str) -> bytes:
        match name:
            case "README":
                return GUIDE
            case "status.json":
                return _padded(self._report())
            case _:
                return self._failures.text()


class Latest:
    """The symlinks of `latest/`, kept while nothing happened to the list of sessions."""

    def __init__(self, store: Store, changed_at: Callable[[], float | None]) -> None:
        self._store = store
        self._changed_at = changed_at
        self._links: dict[str, str] = {}
        self._as_of = -1.0

    async def links(self) -> Mapping[str, str]:
        """`<agent>_<sender>` to slug.

        A session appears as a directory first and gets its meta a moment later, which no event of
        the store's root tells: links made that soon after a change are made again.
        """
        changed_at = self._changed_at()
        if changed_at is None or self._as_of < changed_at + SETTLING:
            now = trio.current_time()
            self._links = await trio.to_thread.run_sync(self._store.latest_links)
            self._as_of = now
        return self._links


def _padded(status: Mapping[str, Any]) -> bytes:
    text = orjson.dumps(status, option=orjson.OPT_INDENT_2)
    return text[: STATUS_SIZE - 1].ljust(STATUS_SIZE - 1) + b"\n"

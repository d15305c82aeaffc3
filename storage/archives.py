"""The daemon's memory: the texts of archives, which the store itself does not hold (G2).

It is either an exported tree (`storage.memory_tree`), in which summaries can be stored, or one database
file, which is the daemon's alone. The whole database is unusable if any of it is wrong; each version
of it is warned of once.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
import threading
from collections.abc import Hashable
from typing import BinaryIO

from storage import memory_tree
from storage.errors import StoreError, doing, printable

_log = logging.getLogger(__name__)

_MAGIC = b"CRMEM\0"
_VERSION = 1
_KINDS = range(3)
_HEADER = struct.Struct("<6sIH4x")
_COUNTS = struct.Struct("<QI")
_ENTRY = struct.Struct("<QQI")
_U32 = struct.Struct("<I")

_INSTEAD = (
    "nothing was stored: write the archive's name alone, or mount with memory=DIR, an exported tree"
)

Version = Hashable
Spans = dict[str, tuple[int, int]]


class MemoryFileError(Exception):
    """A memory that cannot be used; its text says why."""


class Memory:
    """The memory at `path`, looked at again whenever it may have changed; None knows no text.

    It may be used by several threads.
    """

    def __init__(self, path: str | None, store_path: str | None = None) -> None:
        """Where there is nothing at `path`, the tree `memory` beside `store_path`, if given, is it."""
        self._path = path
        self._store_path = store_path
        self._turn = threading.Lock()
        self._warned: Version = None
        self._database: _Database | None = None
        self._database_version: Version = None

    @classmethod
    def beside(cls, store_path: str) -> Memory:
        """Where the daemon keeps it: `memory.db` beside the store, else the tree `memory`."""
        return cls(_beside(store_path, "memory.db"), store_path)

    def version(self, name: str | None = None) -> Version:
        """A token that differs when the text of archive `name` may have (two stats, three in a tree).

        Without a name it tells of the whole memory, except of a change inside a file of a tree.
        """
        if self._path is None:
            return None
        try:
            path = self._in_use(self._path)
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                status = os.lstat(memory_tree.path_of(path, name))
        except OSError as error:
            return str(error)
        return _token(status)

    def text(self, name: str) -> str | None:
        """The text of the archive `name`, None where it is not known. Raises nothing."""
        if self._path is None:
            return None
        with self._turn:
            try:
                return self._text(self._path, name)
            except FileNotFoundError:
                return None
            except (OSError, StoreError, MemoryFileError) as error:
                self._warn(error, self.version(name))
                return None

    def keep(
        self, name: str, text: str, mode: int, may: memory_tree.Permission, *, sync: bool
    ) -> None:
        """Store a summary as the text of the archive `name` (G31); with `sync` it is on disk then.

        `mode` bounds who may read it, `may` says who may make files. Raises StoreError: EROFS where the
        memory is the daemon's database, EEXIST where that archive has another text, EINVAL or
        ENAMETOOLONG for the name, EACCES, ENOSPC, …; no text of that archive is stored then.
        """
        if self._path is None:
            raise StoreError(errno.EROFS, "no-memory", f"the mount uses no memory; {_INSTEAD}")
        with doing(f"store the summary {printable(name)}"):
            path = self._in_use(self._path)
            if self._store_path is not None and path != self._path:
                memory_tree.make(path, os.stat(self._store_path), may, sync=sync)
            if not os.path.exists(path):
                sentence = f"the memory {printable(path)} does not exist; {_INSTEAD}"
                raise StoreError(errno.ENOENT, "no-memory", sentence)
            if not os.path.isdir(path):
                sentence = f"the memory {printable(path)} is the daemon's database; {_INSTEAD}"
                raise StoreError(errno.EROFS, "memory-is-database", sentence)
            memory_tree.keep(path, name, text, mode, may, sync=sync)

    def close(self) -> None:
        """Lets go of the database."""
        with self._turn:
            self._use(None, None)

    def _in_use(self, path: str) -> str:
        if self._store_path is None or os.path.exists(path):
            return path
        return _beside(self._store_path, "memory")

    def _text(self, path: str, name: str) -> str | None:
        path = self._in_use(path)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            self._use(None, None)
            return memory_tree.text(path, name)
        if not stat.S_ISREG(status.st_mode):
            raise MemoryFileError("it is neither a file nor a directory")
        if self._database_version != _token(status):
            self._use(None, None)
            try:
                self._use(_Database(path), _token(status))
            except MemoryFileError:
                self._use(None, _token(status))
                raise
        return self._database.text(name) if self._database else None

    def _use(self, database: _Database | None, version: Version) -> None:
        if self._database:
            self._database.close()
        self._database, self._database_version = database, version

    def _warn(self, error: Exception, version: Version) -> None:
        if version != self._warned:
            self._warned = version
            _log.warning("the memory %s cannot be used: %s", printable(self._path or ""), error)


def _beside(store_path: str, name: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(store_path)), name)


class _Database:
    """One version of the database file: where in it each text is. The texts stay on disk."""

    def __init__(self, path: str) -> None:
        """Reads all of the file. Raises OSError, and MemoryFileError if any of it is wrong."""
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with open(self._fd, "rb", closefd=False) as file:
                self._spans = _spans(file)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def text(self, name: str) -> str | None:
        offset, length = self._spans.get(name, (0, None))
        if length is None:
            return None
        return _utf8(os.pread(self._fd, length, offset))


def _spans(file: BinaryIO) -> Spans:
    """Offset and length of each entry's content, by the entry's name."""
    size = os.fstat(file.fileno()).st_size

    def take(count: int) -> bytes:
        data = file.read(count) if count <= size else b""
        if len(data) < count:
            raise MemoryFileError("it ends too early")
        return data

    def take_string() -> str:
        return _utf8(take(*_U32.unpack(take(_U32.size))))

    magic, version, flags = _HEADER.unpack(take(_HEADER.size))
    if (magic, version, flags) != (_MAGIC, _VERSION, 0):
        raise MemoryFileError("it is not a memory database of version 1")
    spans = {}
    _, entries = _COUNTS.unpack(take(_COUNTS.size))
    for _ in range(entries):
        _, _, kind = _ENTRY.unpack(take(_ENTRY.size))
        if kind not in _KINDS:
            raise MemoryFileError(f"it holds an entry of unknown kind {kind}")
        name = take_string()
        start = file.tell() + _U32.size
        take_string()
        spans[name] = start, file.tell() - start
        (aliases,) = _U32.unpack(take(_U32.size))
        for _ in range(aliases):
            take_string()
    return spans


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MemoryFileError("it holds text that is not UTF-8") from None


def _token(status: os.stat_result) -> Version:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )

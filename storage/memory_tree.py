"""The daemon's memory as an exported tree: a file `archives/NAME.md` for each archive.

Around the text of an archive white space means nothing, and before it there may be a block of what is
known of it. Summaries are stored here (G31): complete, under a name that was free, never in place of
what is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from storage import posix as files
from storage.errors import StoreError, printable

TEXT_BYTES_MAX: Final = 64 << 20
"""A longer text is not known."""
STALE_SECONDS: Final = 60
"""A temporary file older than this was left by a crash."""

Permission = Callable[[os.stat_result], bool]
"""Whether files may be made in a directory of that status."""

_ARCHIVES: Final = "archives"
_SUFFIX: Final = ".md"
_NAME_BYTES_MAX: Final = 255 - len(_SUFFIX)
_META_BLOCK: Final = re.compile(r'\s*<div id="meta">.*?</div>', re.DOTALL)
_NO_META: Final = '<div id="meta"></div>\n'
_TEMPORARY: Final = ".stepfs-"


def path_of(tree: str, name: str | None) -> str:
    """The path of the archive `name`; without one, of the directory of them all.

    Raises OSError ENOENT for what no file can be called.
    """
    return os.path.join(tree, _ARCHIVES, "" if name is None else _file_name(name))


def text(tree: str, name: str) -> str | None:
    """The text of the archive `name`, None if there is none.

    Raises OSError, and StoreError for what is not a regular file, too long or not UTF-8.
    """
    with _archives(tree) as archives:
        return _text(_file_name(name), archives)


def keep(tree: str, name: str, text: str, mode: int, may: Permission, *, sync: bool) -> None:
    """Store `text` as that of the archive `name`, complete or not at all.

    Its file is readable as its directory is, and by nobody that `mode` leaves out. One that is there
    already and has this text will do. With `sync` the contents are on disk before the name, and the
    name on return. Raises StoreError EEXIST where the archive has another text, EINVAL for an empty text
    and, or ENAMETOOLONG, for a name that no file should have, EACCES; OSError.
    """
    file_name = _new_file_name(name)
    if not text.strip():
        raise StoreError(errno.EINVAL, "empty-summary", "the summary is empty: give it a text")
    make(os.path.join(tree, _ARCHIVES), os.stat(tree), may, sync=sync)
    with _archives(tree) as archives:
        _clear_stale(archives)
        if not files.exists(file_name, archives):
            _require(may, archives, tree)
            _link_new(file_name, _document(text), mode, archives, sync=sync)
        elif not _holds(file_name, text, archives):
            sentence = f"the memory has an archive {printable(name)} with another text"
            raise StoreError(errno.EEXIST, "archive-exists", f"{sentence}: choose a new name")
        if sync:
            os.fsync(archives)


def make(directory: str, like: os.stat_result, may: Permission, *, sync: bool) -> None:
    """Make a directory where it is missing, with the mode and the owner in `like`.

    Raises StoreError EACCES; OSError.
    """
    parent, name = os.path.split(directory)
    with _opened(parent) as at, contextlib.suppress(FileExistsError):
        if files.exists(name, at):
            return
        _require(may, at, parent)
        os.mkdir(name, 0o700, dir_fd=at)
        with _opened(name, at) as made:
            files.give(made, _owner(like))
            os.fchmod(made, stat.S_IMODE(like.st_mode) & 0o777)
        if sync:
            os.fsync(at)


def _text(file_name: str, archives: int) -> str | None:
    if not files.is_regular(file_name, archives):
        return None
    content, _ = files.read_regular(file_name, archives, TEXT_BYTES_MAX)
    try:
        found = content.decode()
    except UnicodeDecodeError:
        sentence = f"{printable(file_name)} holds text that is not UTF-8"
        raise StoreError(errno.EINVAL, "not-utf8", sentence) from None
    meta = _META_BLOCK.match(found)
    return found[meta.end() if meta else 0 :].strip()


def _holds(file_name: str, text: str, archives: int) -> bool:
    try:
        return _text(file_name, archives) == text.strip()
    except StoreError:
        return False


def _document(text: str) -> bytes:
    """What `_text` reads as `text`."""
    before = _NO_META if _META_BLOCK.match(text) else ""
    return f"{before}{text.strip()}\n".encode()


def _file_name(name: str) -> str:
    if not name or "/" in name or "\0" in name or len(os.fsencode(name)) > _NAME_BYTES_MAX:
        raise OSError(errno.ENOENT, "no file can have this name")
    return f"{name}{_SUFFIX}"


def _new_file_name(name: str) -> str:
    if len(os.fsencode(name)) > _NAME_BYTES_MAX:
        sentence = f"with a summary the archive's name may be {_NAME_BYTES_MAX} bytes long at most"
        raise StoreError(errno.ENAMETOOLONG, "name-too-long", sentence)
    if "/" in name or name.startswith("."):
        sentence = "with a summary the archive's name must be a file's: no slash, no dot before it"
        raise StoreError(errno.EINVAL, "not-a-file-name", sentence)
    return _file_name(name)


def _link_new(name: str, data: bytes, mode: int, archives: int, *, sync: bool) -> None:
    about = os.fstat(archives)
    temporary = f"{_TEMPORARY}{files.token()}.tmp"
    bits = stat.S_IMODE(about.st_mode) & mode & 0o666
    files.write_new(temporary, data, archives, bits, _owner(about), sync)
    try:
        os.link(temporary, name, src_dir_fd=archives, dst_dir_fd=archives, follow_symlinks=False)
    finally:
        os.unlink(temporary, dir_fd=archives)


def _clear_stale(archives: int) -> None:
    for name in files.listing(archives):
        if name.startswith(_TEMPORARY):
            with contextlib.suppress(OSError):
                age = time.time() - files.status(name, archives).st_mtime
                if age > STALE_SECONDS:
                    os.unlink(name, dir_fd=archives)


def _require(may: Permission, directory: int, shown: str) -> None:
    if not may(os.fstat(directory)):
        sentence = f"you may not store summaries in {printable(shown)}"
        raise StoreError(errno.EACCES, "not-yours", sentence)


def _owner(about: os.stat_result) -> tuple[int, int] | None:
    return (about.st_uid, about.st_gid) if os.geteuid() == 0 else None


@contextlib.contextmanager
def _archives(tree: str) -> Iterator[int]:
    with _opened(tree) as root, _opened(_ARCHIVES, root) as archives:
        yield archives


@contextlib.contextmanager
def _opened(name: str, at: int | None = None) -> Iterator[int]:
    descriptor = files.open_directory(name, at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

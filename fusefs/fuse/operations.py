"""The adapter between pyfuse3 and the file system; no exception in an operation ends the mount (G19)."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar, cast

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    PollHandle,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from fusefs.failures import Caller
from fusefs.filesystem import FileSystem
from fusefs.inodes.attributes import Attributes
from fusefs.inodes.inode import Inode
from storage.errors import StoreError

log: Final = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def handler(
    method: Callable[Concatenate[Adapter, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Adapter, P], Coroutine[Any, Any, T]]:
    """Count an operation, and turn its exceptions into errnos.

    An unexpected exception becomes EIO, with a traceback in the log; leaving the handler, it would end
    the mount.
    """
    name = method.__name__

    @functools.wraps(method)
    async def handle(self: Adapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.filesystem.superblock.operations.begin(name):
            try:
                return await method(self, *args, **kwargs)
            except StoreError as error:
                raise FUSEError(error.errno) from None
            except FUSEError:
                raise
            except OSError as error:
                log.exception("%s failed", name)
                raise FUSEError(error.errno or errno.EIO) from None
            except MemoryError:
                log.error("%s failed: out of memory", name)  # noqa: TRY400
                raise FUSEError(errno.ENOMEM) from None
            except Exception:
                log.exception("%s failed", name)
                raise FUSEError(errno.EIO) from None

    return handle


class Adapter(pyfuse3.Operations):
    """pyfuse3's operations, implemented by a `FileSystem`.

    Extended attributes are answered with ENOSYS, after which the kernel never asks for any again.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, filesystem: FileSystem, on_live: Callable[[], None]) -> None:
        super().__init__()
        self.filesystem = filesystem
        self._on_live = on_live

    def init(self) -> None:
        self._on_live()

    @handler
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return _entry(await self.filesystem.lookup(parent_inode, os.fsdecode(name)))

    @handler
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return _entry(await self.filesystem.getattr(inode))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, lookups in inode_list:
            try:
                self.filesystem.forget(inode, lookups)
            except Exception:
                log.exception("forget failed")

    @handler
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return os.fsencode(await self.filesystem.readlink(inode))

    @handler
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return await self.filesystem.opendir(inode, _caller(ctx))

    @handler
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        await self.filesystem.prepare(fh, start_id)
        for name, inode, is_dot, attributes, following in self.filesystem.entries(fh, start_id):
            told = _type_alone(inode) if attributes is None else _entry(attributes)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), told, following):
                self.filesystem.forget(inode.ino, 0)
                return
            if not is_dot:
                inode.lookups += 1

    @handler
    async def releasedir(self, fh: int) -> None:
        self.filesystem.releasedir(fh)

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    @handler
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        opened = await self.filesystem.open(inode, flags, _caller(ctx))
        return FileInfo(fh=opened.handle, direct_io=not opened.cached, keep_cache=opened.cached)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return cast(bytes, await self.filesystem.read(fh, off, size))

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self.filesystem.write(fh, buf)

    @handler
    async def flush(self, fh: int) -> None:
        await self.filesystem.flush(fh)

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self.filesystem.fsync(fh)

    @handler
    async def release(self, fh: int) -> None:
        await self.filesystem.release(fh)

    @handler
    async def poll(
        self,
        inode: int,
        fh: int,
        poll_handle: PollHandle | None,
        ctx: RequestContext,
    ) -> int:
        return await self.filesystem.poll(fh, None if poll_handle is None else _Waiter(poll_handle))

    @handler
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        return _entry(await self.filesystem.setattr(inode, _caller(ctx)))

    @handler
    async def mkdir(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        ctx: RequestContext,
    ) -> EntryAttributes:
        return _entry(await self.filesystem.mkdir(parent_inode, os.fsdecode(name), _caller(ctx)))

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self.filesystem.rmdir(parent_inode, os.fsdecode(name), _caller(ctx))

    @handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        found = await self.filesystem.statfs()
        told = StatvfsData()
        for field in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"):
            setattr(told, f"f_{field}", getattr(found, f"f_{field}"))
        told.f_namemax = found.f_namemax
        return told

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._refuse(parent_inode, name, "unlink", ctx)

    @handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        await self._refuse(parent_inode_old, name_old, "rename", ctx)

    @handler
    async def link(
        self,
        inode: int,
        new_parent_inode: int,
        new_name: bytes,
        ctx: RequestContext,
    ) -> EntryAttributes:
        await self._refuse(new_parent_inode, new_name, "link", ctx)

    @handler
    async def symlink(
        self,
        parent_inode: int,
        name: bytes,
        target: bytes,
        ctx: RequestContext,
    ) -> EntryAttributes:
        await self._refuse(parent_inode, name, "symlink", ctx)

    @handler
    async def mknod(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        rdev: int,
        ctx: RequestContext,
    ) -> EntryAttributes:
        await self._refuse(parent_inode, name, "mknod", ctx)

    @handler
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        await self._refuse(parent_inode, name, "create", ctx)

    async def _refuse(
        self, parent_inode: int, name: bytes, operation: str, ctx: RequestContext
    ) -> NoReturn:
        await self.filesystem.refuse(parent_inode, os.fsdecode(name), operation, _caller(ctx))


class _Waiter:
    def __init__(self, handle: PollHandle) -> None:
        self._handle = handle

    def notify(self) -> None:
        with contextlib.suppress(OSError):
            self._handle.notify()


def _type_alone(inode: Inode) -> EntryAttributes:
    """The entry in a listing for an inode of which only the type is known. The next call reuses it."""
    entry = _TYPES[inode.kind]
    entry.st_ino = inode.ino
    return entry


def _entry(attributes: Attributes) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = attributes.ino
    entry.entry_timeout = attributes.entry_timeout
    entry.attr_timeout = attributes.attr_timeout
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_size = attributes.size
    entry.st_blksize = 4096
    entry.st_blocks = -(-attributes.size // 512)
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = attributes.mtime_ns
    return entry


_TYPES: Final = {
    kind: _entry(Attributes(0, kind | bits, 0, 0, attr_timeout=0))
    for kind, bits in ((stat.S_IFREG, 0o400), (stat.S_IFDIR, 0o500))
}


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.pid, ctx.uid, ctx.gid)

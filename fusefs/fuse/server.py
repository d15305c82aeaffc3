"""Serves a store at a mountpoint: mounts it, runs the loop, unmounts it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import pyfuse3
import trio

from fusefs import mounts as mountinfo
from fusefs.config import MountOptions
from fusefs.filesystem import FileSystem
from fusefs.fuse.abort_guard import Guard
from fusefs.fuse.kernel_cache import KernelCaches
from fusefs.fuse.operations import Adapter
from fusefs.superblock import Superblock
from storage.errors import StoreError, printable
from storage.store import Store
from storage.sweep import sweep

SWITCH_SECONDS: Final = 0.0005
"""The interpreter's switch interval (default 5 ms): replays in threads must not hold up the loop."""
JOIN_SECONDS: Final = 2.0
SWEEP_RETRY_SECONDS: Final = 30.0
"""If descriptors have run out, the sweep is tried again after this pause: it is not urgent."""
SWEEP_PAUSE: Final = 0.03
"""Seconds between two parts of the sweep, so that it does not slow a first listing of a big store."""
MOST_TASKS: Final = 1000
"""Limit of concurrent operations. Some wait for pages that others have to read, so it is generous."""
log: Final = logging.getLogger(__name__)


class Server:
    """One mount, from start to end."""

    def __init__(self, store_path: str, mountpoint: str, options: MountOptions) -> None:
        """Opens the store. Raises `StoreError`."""
        self._mountpoint = mountpoint
        self._options = options
        self._kernel = KernelCaches()
        self._superblock = Superblock(Store(store_path), options, self._kernel)
        self._mounted = False
        self._number: int | None = None
        """The minor number of the mount's device; None if the mount table does not have it."""
        self._guard: Guard | None = None
        self._rate: tuple[float, int] = (time.monotonic(), 0)

    def mount(self, on_live: Callable[[], None]) -> None:
        """Mount; requests wait for `serve`, which calls `on_live` once the mount answers.

        Raises `StoreError`.
        """
        os.umask(0)
        adapter = Adapter(FileSystem(self._superblock), on_live)
        try:
            pyfuse3.init(adapter, self._mountpoint, self._fuse_options())
        except RuntimeError as error:
            sentence = f"could not mount at {printable(self._mountpoint)}"
            denied = errno.EPERM if os.geteuid() != 0 else errno.EIO
            raise StoreError(denied, "mount-failed", sentence) from error
        self._mounted = True
        self._number = self._shown_number()
        self._guard = Guard(self._number)

    async def serve(self) -> None:
        """Serve until unmounted or stopped."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._kernel.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._superblock.run)
            async with trio.open_nursery() as sweeping:
                if not self._options.read_only:
                    sweeping.start_soon(self._sweep)
                await pyfuse3.main(max_tasks=MOST_TASKS)
                sweeping.cancel_scope.cancel()
            await self._superblock.finish()
            nursery.cancel_scope.cancel()

    async def _sweep(self) -> None:
        """Remove what a crash left of sessions that were being created or deleted."""

        def pause() -> None:
            trio.from_thread.run(trio.sleep, SWEEP_PAUSE)

        # The unmount must not wait for a far store that does not answer.
        sweeping = partial(
            trio.to_thread.run_sync,
            sweep,
            self._superblock.store,
            pause,
            abandon_on_cancel=not self._superblock.work.near,
        )
        while True:
            try:
                await sweeping()
            except (StoreError, OSError) as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    log.warning(
                        "what crashes have left in the store could not be removed: %s", error
                    )
                    return
            else:
                return
            await trio.sleep(SWEEP_RETRY_SECONDS)

    def stop(self) -> None:
        """End `serve` once the operations under way are done. On the loop."""
        pyfuse3.terminate()

    def close(self) -> None:
        """Unmount, lazily if it is busy, and close everything.

        If this mount was already detached here, and only another mount namespace kept it alive,
        something else may be mounted at the mountpoint by now: that is left alone.
        """
        self._kernel.stop(JOIN_SECONDS)
        if self._mounted:
            pyfuse3.close(unmount=self._shown_number() == self._number)
            self._mounted = False
        if self._guard is not None:
            self._guard.dismiss()
        self._superblock.close()

    def reload(self) -> None:
        """Re-examine the whole store and the daemon's memory."""
        self._superblock.reload()

    def status(self) -> Mapping[str, Any]:
        """The content of `status.json`."""
        return self._superblock.status.document()

    def status_line(self) -> str:
        """One line: the store, the sessions in use, and operations per second since the last call."""
        now, done = time.monotonic(), self._superblock.operations.done.total()
        since, before = self._rate
        self._rate = (now, done)
        rate = (done - before) / max(now - since, 0.001)
        store = printable(self._superblock.store.path)
        return f"serving {store}: {len(self._superblock.pool)} sessions in use, {rate:.0f} operations/s"

    def dump(self) -> str:
        """The operations under way, and the stacks of all tasks and threads. On the loop."""
        lines = [f"under way: {o}" for o in self.status()["in_flight"]]
        lines += _tasks(trio.lowlevel.current_root_task())
        frames = sys._current_frames()
        for thread in threading.enumerate():
            lines.append(f"thread {thread.name}")
            frame = frames.get(thread.ident or 0)
            lines += [line.rstrip() for line in traceback.format_stack(frame)] if frame else []
        return "\n".join(lines)

    def _shown_number(self) -> int | None:
        mount = mountinfo.top(os.path.abspath(self._mountpoint))
        return mount.number if mount else None

    def _fuse_options(self) -> set[str]:
        options = {"default_permissions", "subtype=stepfs", f"fsname={self._fsname()}"}
        if self._options.allow_other:
            options.add("allow_other")
        if self._options.read_only:
            options.add("ro")
        return options

    def _fsname(self) -> str:
        """The store's path, escaped for the mount option: pyfuse3 takes only ASCII, and a comma ends an
        option. `Mount.store` decodes it."""
        path = os.fsencode(self._superblock.store.path)
        text = "".join(f"%{byte:02X}" if byte in b"%" or byte > 127 else chr(byte) for byte in path)
        return text.replace("\\", "\\\\").replace(",", "\\,")


def _tasks(task: trio.lowlevel.Task | None) -> Iterator[str]:
    if task is None:
        return
    yield f"task {task.name}"
    for frame, line in task.iter_await_frames():
        code = frame.f_code
        yield f"  {code.co_filename}:{line} in {code.co_qualname}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)

"""One small interface to a served store, with two implementations: the tree alone, and a real mount.

The tree alone is driven through `tests.support.model_kernel`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
import trio

from fusefs import config as options
from fusefs.filesystem import FileSystem
from fusefs.superblock import Superblock
from storage.errors import StoreError
from storage.store import Store
from tests.support.commands import until
from tests.support.far import bound
from tests.support.logged import Logged
from tests.support.model_kernel import Caches, ModelKernel, Stat
from tests.support.mounted import ALLOWED, Mount, mounted, time_limit
from tests.support.stores import SessionOnDisk, StoreOnDisk

SECONDS = 30.0
ENDS = [part for part in ALLOWED if "mounted" in part]
"""What every mount logs when it starts and ends."""
P = ParamSpec("P")
T = TypeVar("T")


class Driver(ABC):
    """Access to a served store, by paths relative to the mountpoint. Failures are `OSError`."""

    def __init__(self, store: StoreOnDisk) -> None:
        self.store = store
        self._expected: list[str] = []
        self._allowed: list[str] = []
        self._sessions = 0

    @abstractmethod
    def open(self, path: str, flags: int = os.O_RDONLY) -> int: ...

    @abstractmethod
    def read(self, handle: int, offset: int = 0, size: int = 1 << 24) -> bytes: ...

    @abstractmethod
    def write(self, handle: int, data: bytes) -> int: ...

    @abstractmethod
    def flush(self, handle: int) -> None:
        """FLUSH, as sent when a duplicate is closed or a child that inherited the file exits."""

    @abstractmethod
    def close(self, handle: int) -> None: ...

    @abstractmethod
    def stat(self, path: str) -> Stat: ...

    @abstractmethod
    def fstat(self, handle: int) -> Stat: ...

    @abstractmethod
    def listdir(self, path: str) -> list[str]: ...

    @abstractmethod
    def mkdir(self, path: str) -> None: ...

    @abstractmethod
    def rmdir(self, path: str) -> None: ...

    @abstractmethod
    def truncate(self, path: str) -> None: ...

    @abstractmethod
    def log(self) -> list[str]:
        """The lines logged since the last `forget_log`, at level notice and above."""

    @abstractmethod
    def forget_log(self) -> None: ...

    def session(self, *steps: bytes) -> SessionOnDisk:
        """Create a session in the store, as another program does."""
        self._sessions += 1
        return self.store.session(f"crab_tg-42_{self._sessions}", *steps)

    @contextmanager
    def opened(self, path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """Open a file; close it at the end."""
        handle = self.open(path, flags)
        try:
            yield handle
        finally:
            self.close(handle)

    def text(self, path: str) -> bytes:
        """The whole contents of a file, read as `cat` reads it."""
        with self.opened(path) as handle:
            text = b""
            while part := self.read(handle, len(text)):
                text += part
            return text

    def put(self, path: str, data: bytes) -> None:
        """Write as shells do: after a short write, write the rest again."""
        with self.opened(path, os.O_WRONLY | os.O_TRUNC) as handle:
            while data:
                data = data[self.write(handle, data) :]

    def append(self, session: SessionOnDisk, data: bytes) -> None:
        """Write to the session's `append`."""
        self.put(f"{session.slug}/append", data)

    def compact(self, session: SessionOnDisk, name: str) -> None:
        """Write a line to the session's `compact`."""
        self.put(f"{session.slug}/compact", name.encode() + b"\n")

    def history(self, session: SessionOnDisk) -> bytes:
        """The contents of `history.jsonl`."""
        return self.text(f"{session.slug}/history.jsonl")

    def errors(self) -> list[str]:
        """The lines of errors.jsonl."""
        return self.text(".stepfs/errors.jsonl").decode().splitlines()

    def told(self, session: SessionOnDisk) -> dict[str, Any]:
        """The last line of errors.jsonl about a session. Waits for it: some failures are recorded a
        moment after the call that caused them, for example when the kernel releases a file."""
        found: list[dict[str, Any]] = []

        def looked() -> bool:
            lines = map(json.loads, self.errors())
            found.extend(line for line in lines if line["session"] == session.slug)
            return bool(found)

        until(looked)
        return found[-1]

    def expect(self, part: str) -> None:
        """The test provokes a notice or warning containing `part`, which must appear."""
        self._expected.append(part)

    def allow(self, part: str) -> None:
        """The test may provoke a notice or warning containing `part`."""
        self._allowed.append(part)

    @contextmanager
    def refuses(self, number: int, part: str | None = None) -> Iterator[None]:
        """The block must fail with that errno; if `part` is given, the log must contain it."""
        if part is not None:
            self.expect(part)
        with pytest.raises(OSError) as failed:
            yield
        assert errno.errorcode[failed.value.errno or 0] == errno.errorcode[number]

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Run one test with the driver: it must log what the test expects, and nothing else."""
        self._expected, self._allowed = [], []
        self.forget_log()
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        yield
        log, fine = self.log(), self._expected + self._allowed
        assert [line for line in log if not any(part in line for part in fine)] == []
        if missing := self._missing(log):  # of many similar refusals, only the first are logged
            missing = self._missing([*log, *self._failed_since(began)])
        assert missing == []

    def _missing(self, lines: list[str]) -> list[str]:
        return [part for part in self._expected if not any(part in line for line in lines)]

    def _failed_since(self, began: str) -> list[str]:
        """The failures in errors.jsonl since then, formatted as in the log."""
        lines = [line for line in map(json.loads, self.errors()) if line["time"] >= began]
        form = "{operation} {session}/{file}: {error} ({errno})"
        return [form.format_map(line) for line in lines]


class MountDriver(Driver):
    """A real mount, used through the kernel as any program uses it."""

    def __init__(self, mount: Mount, store: Path) -> None:
        """`store` is the path by which other programs see the mounted store."""
        super().__init__(StoreOnDisk(store))
        self.mount = mount
        self._seen = 0

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        return os.open(self.mount.path / path, flags)

    def read(self, handle: int, offset: int = 0, size: int = 1 << 24) -> bytes:
        return os.pread(handle, size, offset)

    def write(self, handle: int, data: bytes) -> int:
        return os.write(handle, data)

    def flush(self, handle: int) -> None:
        os.close(os.dup(handle))

    def close(self, handle: int) -> None:
        os.close(handle)

    def stat(self, path: str) -> Stat:
        return _stat(os.lstat(self.mount.path / path))

    def fstat(self, handle: int) -> Stat:
        return _stat(os.fstat(handle))

    def listdir(self, path: str) -> list[str]:
        return os.listdir(self.mount.path / path)

    def mkdir(self, path: str) -> None:
        os.mkdir(self.mount.path / path)

    def rmdir(self, path: str) -> None:
        os.rmdir(self.mount.path / path)

    def truncate(self, path: str) -> None:
        os.truncate(self.mount.path / path, 0)

    def log(self) -> list[str]:
        lines = self.mount.log()[self._seen :].splitlines()
        return [line for line in lines if line and not any(part in line for part in ENDS)]

    def forget_log(self) -> None:
        self._seen = len(self.mount.log())


class TreeDriver(Driver):
    """The tree with a model kernel, in its own trio loop in a thread."""

    def __init__(self, store: StoreOnDisk, *words: str) -> None:
        super().__init__(store)
        self.kernel = Caches()
        self.superblock = Superblock(Store(str(store.path)), options.parse(words), self.kernel)
        self._logged = Logged()
        self._programs = ModelKernel(FileSystem(self.superblock), self.kernel)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._live,), daemon=True)
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Shut down, and check that nothing is left once the kernel has forgotten everything."""
        try:
            for handle in list(self._programs.inodes):  # left open by failed tests
                with contextlib.suppress(OSError):
                    self.close(handle)
            self.forget_everything()
        finally:
            trio.from_thread.run_sync(self._end.set, trio_token=self._token)
            self._thread.join(SECONDS)
            self.superblock.close()
            self._logged.stop()
        assert not self._thread.is_alive()

    def forget_everything(self) -> None:
        """The kernel forgets all inodes, and the pool all unused sessions."""
        self._run(self._programs.forget_everything)

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        return self._run(self._programs.open, path, flags)

    def read(self, handle: int, offset: int = 0, size: int = 1 << 24) -> bytes:
        return self._run(self._programs.read, handle, offset, size)

    def write(self, handle: int, data: bytes) -> int:
        return self._run(self._programs.write, handle, data)

    def flush(self, handle: int) -> None:
        self._run(self._programs.flush, handle)

    def close(self, handle: int) -> None:
        self._run(self._programs.close, handle)

    def stat(self, path: str) -> Stat:
        return self._run(self._programs.stat, path)

    def fstat(self, handle: int) -> Stat:
        return self._run(self._programs.fstat, handle)

    def listdir(self, path: str) -> list[str]:
        return self._run(self._programs.listdir, path)

    def mkdir(self, path: str) -> None:
        self._run(self._programs.mkdir, path)

    def rmdir(self, path: str) -> None:
        self._run(self._programs.rmdir, path)

    def truncate(self, path: str) -> None:
        self._run(self._programs.truncate, path)

    def log(self) -> list[str]:
        return list(self._logged.lines)

    def forget_log(self) -> None:
        self._logged.lines.clear()

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._end = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.superblock.run)
            self._ready.set()
            await self._end.wait()
            await self.superblock.finish()
            nursery.cancel_scope.cancel()

    def _run(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        async def limited() -> T:
            with trio.fail_after(SECONDS):
                return await work(*args, **kwargs)

        try:
            return trio.from_thread.run(limited, trio_token=self._token)
        except StoreError as error:
            raise OSError(error.errno, error.sentence) from None


@contextmanager
def driving(kind: str, store: Path, directory: Path, *words: str) -> Iterator[Driver]:
    """A served store: `kind` is `"tree"`, `"mount"` or `"far"`, `words` are -o options.

    With `"far"`, changes in the store raise no inotify events, as if another host made them.
    """
    if kind == "tree":
        tree = TreeDriver(StoreOnDisk(store), *words)
        try:
            yield tree
        finally:
            tree.stop()
    elif kind == "mount":
        with mounted(store, directory, *words, check=False) as mount:
            yield MountDriver(mount, store)
    else:
        with (
            bound(store, directory / "bound") as far,
            mounted(far, directory, *words, check=False) as mount,
        ):
            yield MountDriver(mount, store)


@contextmanager
def within_time(driver: Driver, seconds: float) -> Iterator[None]:
    """Limit the time of a test; only a real mount needs that."""
    if isinstance(driver, MountDriver):
        with time_limit(driver.mount.path.parent, seconds):
            yield
    else:
        yield


def _stat(found: os.stat_result) -> Stat:
    return Stat(found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns)

"""A mount with little memory answers ENOMEM and stays alive."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry

Mounting = Callable[..., Mount]
SLUG = "crab_tg-42_1"
MIB = 1 << 20
CGROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))


def _fill(at: Mount) -> None:
    """Write and read what needs much memory; some of it must be refused with ENOMEM."""
    path = at.path
    line = b'{"message":{"role":"user","content":[' + b"[]," * (4 * MIB) + b"1]}}\n"
    opened = []
    for text in (line, entry("x" * (12 * MIB)) + b"\n", *[b"y" * (8 * MIB)] * 8):
        fd = os.open(path / SLUG / "append", os.O_WRONLY)
        opened.append(fd)
        with suppress(OSError):
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(fd, rest) :]
    for fd in opened:
        with suppress(OSError):
            os.close(fd)
    for name in ("history.jsonl", "messages.jsonl", "history.md", "log.jsonl"):
        with suppress(OSError):
            (path / SLUG / name).read_bytes()
    assert [line for line in at.errors() if '"ENOMEM"' in line], "there was memory enough"


def _is_alive(at: Mount, store: StoreOnDisk) -> None:
    store.session("other_tg-42_1", entry("other"))
    assert (at.path / "other_tg-42_1/history.jsonl").read_bytes() == entry("other") + b"\n"
    (at.path / "other_tg-42_1/append").write_bytes(entry("more") + b"\n")
    assert at.server is not None
    assert at.server.poll() is None


@pytest.mark.guarantee("G19d")
def test_with_a_limit_of_its_address_space_a_mount_lives_on(
    store: StoreOnDisk, mount: Mounting
) -> None:
    store.session(SLUG)
    at = mount(check=False, limits={resource.RLIMIT_AS: 1 << 30})
    _fill(at)
    _is_alive(at, store)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup limited to 256 MiB, if this machine allows one to be made."""
    root = next((path for path in CGROUPS if path.is_dir()), CGROUPS[-1])
    group = root / f"stepfs-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if root.name == "memory" else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(256 * MIB))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no cgroup with a memory limit can be made here: {error}")
    yield group
    with suppress(OSError):
        group.rmdir()


@pytest.mark.guarantee("G19d", "G23d")
def test_in_a_cgroup_with_little_memory_a_worker_dies_and_the_mount_survives(
    store: StoreOnDisk, mount: Mounting, cgroup: Path
) -> None:
    store.session(SLUG)
    at = mount(check=False)
    assert at.server is not None
    (cgroup / "cgroup.procs").write_text(str(at.server.pid))
    _fill(at)
    _is_alive(at, store)
    at.stop()

"""Capabilities of a file system: probed at mount, and taken from one value from then on (G26)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage import capabilities
from storage.errors import StoreError

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@pytest.fixture
def store_fd(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.guarantee("G26a")
def test_a_local_file_system_is_near_and_can_do_all(tmp_path: Path, store_fd: int) -> None:
    before = os.listdir("/proc/self/fd")
    found = capabilities.probe(store_fd, write=True)
    assert found.near, found.reason
    assert found.filesystem in capabilities.NEAR_TYPES
    assert found.exclusive_links and found.whole_files and found.locks and found.writable
    assert found.rename_noreplace and found.rename_exchange and found.unnamed_files
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.guarantee("G26a")
def test_nothing_is_tried_where_nothing_will_be_written(tmp_path: Path, store_fd: int) -> None:
    os.utime(tmp_path, ns=(1, 1))
    assert capabilities.probe(store_fd, write=False).near
    assert tmp_path.stat().st_mtime_ns == 1


@ROOT_ONLY
@pytest.mark.guarantee("G26a")
def test_on_a_full_file_system_its_type_decides(tmp_path: Path) -> None:
    """It can be mounted and read, and a write gets ENOSPC until there is room."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", tmp_path], check=True)
    try:
        descriptor = os.open(tmp_path, os.O_RDONLY)
        with contextlib.closing((tmp_path / "filling").open("wb", buffering=0)) as filling:
            with pytest.raises(OSError, match="No space"):
                while True:
                    filling.write(b"x" * 4096)
            assert capabilities.probe(descriptor, write=True) == capabilities.known(descriptor)
            assert os.listdir(tmp_path) == ["filling"]
        os.close(descriptor)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@ROOT_ONLY
@pytest.mark.guarantee("G26a")
def test_a_file_system_without_links_is_not_written_to(tmp_path: Path) -> None:
    """exFAT has no links, so the probe itself has to find out, not a list of file systems."""
    image, at = tmp_path / "image", tmp_path / "at"
    at.mkdir()
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.exfat", image], capture_output=True, check=True, timeout=20)
    loop = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(loop, capture_output=True, text=True, timeout=20).stdout.strip()
    if not device:
        pytest.skip("no loop device can be had here")
    subprocess.run(["mount.exfat-fuse", device, at], capture_output=True, check=True, timeout=20)
    try:
        descriptor = os.open(at, os.O_RDONLY)
        try:
            found = capabilities.probe(descriptor, write=True)
        finally:
            os.close(descriptor)
        assert not found.exclusive_links and not found.writable and not found.near
        assert os.listdir(at) == []
        with pytest.raises(StoreError, match="mount it with -o ro"):
            found.require_writable("/store")
    finally:
        subprocess.run(["umount", at], check=True, timeout=20)
        subprocess.run(["losetup", "--detach", device], check=True, timeout=20)


@ROOT_ONLY
@pytest.mark.guarantee("G26a")
def test_a_chroot_without_its_mounts_is_as_near_as_before(tmp_path: Path) -> None:
    """Where /proc does not list the mount, statfs still identifies the file system."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.chroot(tmp_path)
        descriptor = os.open("/", os.O_RDONLY)
        found = capabilities.known(descriptor)
        os.write(writer, f"{found.near} {found.reason}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, encoding="utf-8") as answer:
        assert answer.read().startswith("True statfs calls it ")


def test_where_links_are_not_exclusive_the_store_is_only_read(store_fd: int) -> None:
    found = replace(capabilities.known(store_fd), exclusive_links=False)
    with pytest.raises(StoreError) as caught:
        found.require_writable("/store")
    assert "-o ro" in caught.value.sentence
    replace(found, exclusive_links=True).require_writable("/store")

"""A file system whose links are not exclusive, inside `seaweedfs.sh`: read, never written."""

from __future__ import annotations

import os

import pytest

from tests.shared.two_hosts import both_hosts

pytestmark = pytest.mark.skipif(
    "SCRATCH" not in os.environ, reason="inside a fixture of make test-shared"
)


@pytest.mark.guarantee("G26a")
def test_the_mount_is_refused_with_a_sentence_and_reading_works() -> None:
    a, _ = both_hosts("store")
    a.path.mkdir()
    refused = a.stepfs("mount", a.store, a.path, check=False)
    assert refused.returncode == 2
    assert "links are not exclusive" in refused.stderr and "-o ro" in refused.stderr
    assert os.listdir(a.path) == []
    a.path.rmdir()
    with a.mounted("ro"):
        assert os.listdir(a.path) == [".stepfs"]


@pytest.mark.guarantee("G26b")
def test_check_says_that_two_clients_lose_steps() -> None:
    a, b = both_hosts("peers")
    found = a.stepfs("check", a.store, "--peer", b.store, check=False)
    assert found.returncode == 7
    assert "link is NOT exclusive" in found.stdout

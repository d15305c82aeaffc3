"""`make wheelhouse` builds all that a machine without a compiler and a package index needs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.commands import clear

PROJECT = Path(__file__).resolve().parents[2]
WITHOUT = dict.fromkeys(("CC", "CXX", "PKG_CONFIG"), "/bin/false")


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheelhouse")
    done = subprocess.run(
        [PROJECT / "packaging/wheelhouse.sh", directory],
        env={**os.environ, "PYTHON": sys.executable, "EXTRAS": "redis"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_pyfuse3_has_libfuse_inside_and_says_on_which_systems_it_runs(wheelhouse: Path) -> None:
    (wheel,) = wheelhouse.glob("pyfuse3-*.whl")
    assert "manylinux" in wheel.name
    libraries = [name for name in ZipFile(wheel).namelist() if ".libs/libfuse3" in name]
    assert len(libraries) == 1


@pytest.mark.timeout(300)
def test_it_is_enough_to_mount_a_store_and_for_hints_without_compiler_or_index(
    wheelhouse: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "fresh", with_pip=True)
    binaries = tmp_path / "fresh/bin"
    pip = [str(binaries / "python"), "-m", "pip", "--isolated", "--quiet", "install", "--no-index"]
    subprocess.run(
        [*pip, "--find-links", str(wheelhouse), "stepfs[redis]"],
        env={**os.environ, **WITHOUT},
        check=True,
    )
    script = """
        stepfs demo store >/dev/null
        mkdir mnt
        stepfs mount store mnt
        wc -l <mnt/crab_tg-42_1/history.jsonl
        server=$(jq .pid mnt/.stepfs/status.json)
        grep -c pyfuse3.libs/libfuse3 "/proc/$server/maps"
        stepfs umount mnt
        python -c "import coredis"
    """
    try:
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
    finally:
        clear(tmp_path)
    assert done.returncode == 0, done.stderr
    lines, mapped = map(int, done.stdout.split())
    assert lines > 1
    assert mapped > 0, "the server uses another libfuse"

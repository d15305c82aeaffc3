"""The wheel and the sdist install into a fresh environment and work there."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both; the wheel is built from the sdist, as by `python -m build`."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--outdir", str(directory), str(PROJECT)]
    subprocess.run(build, check=True, capture_output=True)
    return directory


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_a_distribution_works_in_a_fresh_environment(
    distributions: Path, pattern: str, tmp_path: Path
) -> None:
    (distribution,) = distributions.glob(pattern)
    venv.create(tmp_path / "fresh", with_pip=True)
    binaries = tmp_path / "fresh/bin"
    subprocess.run(
        [binaries / "python", "-m", "pip", "--quiet", "install", distribution],
        check=True,
        capture_output=True,
    )
    store, mountpoint = tmp_path / "store", tmp_path / "mount"
    mountpoint.mkdir()
    subprocess.run([binaries / "stepfs", "demo", store], check=True, cwd="/")
    subprocess.run([binaries / "stepfs", "mount", store, mountpoint], check=True, cwd="/")
    try:
        sessions = {path.name for path in mountpoint.iterdir() if path.name != ".stepfs"}
        assert sessions == {path.parent.name for path in store.glob("*/meta")}
    finally:
        subprocess.run([binaries / "stepfs", "umount", mountpoint], check=True, cwd="/")


def test_the_sdist_holds_what_install_and_the_tests_need(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, check=True, text=True, capture_output=True
    ).stdout.split()
    assert {name for name in tracked if not name.startswith(".")} <= held


def test_a_package_index_would_take_both(distributions: Path) -> None:
    made = sorted(map(str, distributions.iterdir()))
    assert len(made) == 2
    check = [sys.executable, "-m", "twine", "check", "--strict", *made]
    done = subprocess.run(check, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout

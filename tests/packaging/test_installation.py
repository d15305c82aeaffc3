"""`make install` and `make uninstall`, and the units as they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HIDING = (
    "Private(Mounts|Tmp|Devices|Users|IPC|Network)",
    "Protect(System|Home|Proc|Kernel|Control)",
    "ProcSubset|ReadWritePaths|BindPaths|MountFlags",
)
PROJECT = Path(__file__).resolve().parents[2]


def make(target: str, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    arguments = [f"{name}={value}" for name, value in variables.items()]
    return run("make", "-C", PROJECT, "--no-print-directory", target, *arguments)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(arguments, text=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def everything(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation below a DESTDIR that already held a foreign file."""
    destination = tmp_path_factory.mktemp("destination")
    (destination / "usr/local/bin").mkdir(parents=True)
    (destination / "usr/local/bin/other").touch()
    make("install", DESTDIR=destination)
    return destination


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runnable installation in a directory of its own, with the optional parts."""
    place = tmp_path_factory.mktemp("prefix")
    where = {"PREFIX": place, "SBINDIR": place / "sbin", "CONFDIR": place / "etc"}
    make("install", EXTRAS="redis", **where)
    yield place
    make("uninstall", **where)
    assert everything(place) == set()


def test_an_installed_stepfs_runs_without_the_source_or_the_environment(prefix: Path) -> None:
    done = subprocess.run(
        [prefix / "bin/stepfs", "--version"],
        cwd="/",
        env={"PYTHONPATH": "/nowhere", "PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, "stepfs 0.1.0\n"), done.stderr


def test_what_hints_between_hosts_need_is_installed_on_request(prefix: Path) -> None:
    run(prefix / "lib/stepfs/bin/python", "-I", "-c", "import coredis")


def test_mount_finds_the_helper_under_both_names_of_the_type(staged: Path) -> None:
    for name in ("mount.stepfs", "mount.fuse.stepfs"):
        target = (staged / "sbin" / name).readlink()
        assert target == Path("/usr/local/lib/stepfs/bin/mount.stepfs")
        assert (staged / target.relative_to("/")).is_file()


def test_no_installed_file_names_the_build_directory(staged: Path) -> None:
    for path in staged.rglob("*"):
        if path.is_symlink():
            assert str(staged) not in str(path.readlink())
        elif path.is_file():
            assert os.fsencode(staged) not in path.read_bytes(), path


def test_uninstall_removes_exactly_what_install_added_also_after_a_second_install(
    staged: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "copy"
    shutil.copytree(staged, destination, symlinks=True)
    before = everything(destination)
    make("install", DESTDIR=destination)
    assert everything(destination) == before

    (destination / "etc/stepfs/work.conf").touch()
    make("uninstall", DESTDIR=destination)
    assert everything(destination) == {
        "etc",
        "etc/stepfs",
        "etc/stepfs/work.conf",
        "usr",
        "usr/local",
        "usr/local/bin",
        "usr/local/bin/other",
    }


def test_systemd_finds_nothing_wrong_with_the_units(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    system = prefix / "lib/systemd/system/stepfs@.service"
    user = sorted((prefix / "lib/systemd/user").iterdir())
    examples = sorted((prefix / "share/doc/stepfs/examples").glob("*mount"))
    assert len(user) == len(examples) == 2
    for manager, units in (("--system", [system, *examples]), ("--user", user)):
        done = run(
            "systemd-analyze", "verify", manager, "--man=no", "--recursive-errors=no", *units
        )
        assert done.stderr == ""


def test_the_service_is_confined_as_far_as_the_mount_stays_visible(prefix: Path) -> None:
    unit = prefix / "lib/systemd/system/stepfs@.service"
    run("systemd-analyze", "security", "--offline=true", "--threshold=39", "--no-pager", unit)


@pytest.mark.parametrize("setting", HIDING)
def test_no_setting_hides_the_mount(prefix: Path, setting: str) -> None:
    for unit in (prefix / "lib/systemd").rglob("*.service"):
        found = subprocess.run(
            ["grep", "-E", f"^({setting})", unit], capture_output=True, text=True
        )
        assert found.stdout == ""

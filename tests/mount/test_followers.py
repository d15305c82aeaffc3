"""tail and less follow a history as they follow a rotated log."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import until
from tests.support.looking import line
from tests.support.model import HISTORY
from tests.support.mounted import Mount
from tests.support.stores import StoreOnDisk, entry

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)
Mounts = Callable[..., Mount]


# --- those who follow ----------------------------------------------------------------------------


@contextmanager
def running(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.guarantee("G13c", "G12b")
def test_tail_follows_by_descriptor_and_by_name_as_on_a_log_under_rotation(
    store: StoreOnDisk, mount: Mounts, tmp_path: Path
) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = str(mount("sync=never").path / session.slug / HISTORY)
    by_descriptor, by_name = tmp_path / "f", tmp_path / "F"
    tail = ["tail", "-s", "0.05", "-n", "+1"]
    with running([*tail, "-f", history], by_descriptor), running([*tail, "-F", history], by_name):
        until(lambda: by_name.read_bytes() == by_descriptor.read_bytes() == line("one"))
        session.add(entry("two"))
        until(
            lambda: by_name.read_bytes() == by_descriptor.read_bytes() == line("one") + line("two")
        )
        (Path(history).parent / "compact").write_text("archive\n")
        session.add(entry("three"))
        until(lambda: b"has been replaced" in by_name.read_bytes())
        until(lambda: by_name.read_bytes().endswith(line("three")))
        session.add(entry("four"))
        until(lambda: by_name.read_bytes().endswith(line("three") + line("four")))
        assert by_descriptor.read_bytes() == line("one") + line("two")
        assert b"truncated" not in by_name.read_bytes()


@pytest.mark.skipif(not shutil.which("tmux") or not shutil.which("less"), reason="needs tmux, less")
@pytest.mark.guarantee("G12b")
def test_less_follows(store: StoreOnDisk, mount: Mounts, tmp_path: Path) -> None:
    session = store.session("crab_tg-42_1", entry("one"))
    history = mount().path / session.slug / HISTORY
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]

    def screen() -> str:
        command = [*tmux, "capture-pane", "-p"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    subprocess.run(
        [*tmux, "new-session", "-d", "-x", "100", "-y", "30", f"LESSHISTFILE=- less +F {history}"],
        check=True,
    )
    try:
        until(lambda: "one" in screen() and "Waiting" in screen())
        for number in range(5):
            session.add(entry(f"more {number}"))
            until(lambda number=number: f"more {number}" in screen(), 10)  # type: ignore[misc]
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)

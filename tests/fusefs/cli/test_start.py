"""How a command begins: Ctrl-C ends it silently and leaves no mount (G18); streams may be missing."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.exits import INTERRUPTED, Exit
from tests.support.commands import (
    SECONDS,
    STEPFS,
    clear,
    environment,
    is_mounted,
    run,
    serving,
    stepfs,
    until,
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root"
)

SLUG = "crab_tg-42_1"
INTERRUPTED_IN_IMPORT = """
import os, signal, sys
from fusefs.cli import start

def interrupt(event, arguments):
    if event == "import" and arguments[0] == os.environ["INTERRUPTED"]:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
sys.exit(start.stepfs())
"""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The paths of a store and a mountpoint."""
    store, mountpoint = tmp_path / "store", tmp_path / "mnt"
    assert stepfs("demo", store).returncode == 0
    mountpoint.mkdir()
    yield str(store), str(mountpoint)
    clear(tmp_path)
    until(lambda: not serving(tmp_path))


@pytest.mark.parametrize("module", ["fusefs.cli.main", "orjson", "fusefs.daemon", "pyfuse3"])
def test_ctrl_c_while_the_program_is_loaded_ends_it_without_a_word(
    places: tuple[str, str], module: str
) -> None:
    program = [sys.executable, "-c", INTERRUPTED_IN_IMPORT, "mount", "-f", *places]
    answer = run(program, INTERRUPTED=module)
    assert (answer.returncode, answer.stdout, answer.stderr) == (-signal.SIGINT, "", "")
    assert not is_mounted(Path(places[1]))


def test_a_server_that_is_interrupted_while_it_is_loaded_is_reported(
    places: tuple[str, str],
) -> None:
    answer = run(
        [sys.executable, "-c", INTERRUPTED_IN_IMPORT, "mount", *places], INTERRUPTED="pyfuse3"
    )
    assert answer.returncode == Exit.FAILED
    assert answer.stderr == "stepfs: the server ended before it was live, killed by SIGINT\n"
    assert not is_mounted(Path(places[1]))


def test_ctrl_c_ends_the_command_and_the_server_that_it_waits_for(places: tuple[str, str]) -> None:
    """A terminal sends SIGINT to both."""
    with subprocess.Popen(
        [*STEPFS, "mount", *places],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as command:
        until(lambda: _has_children(command.pid))
        os.killpg(command.pid, signal.SIGINT)
        _, told = command.communicate(timeout=SECONDS)
    assert told == ""
    assert command.returncode in (INTERRUPTED, -signal.SIGINT)
    until(lambda: not serving(Path(places[1]).parent))
    assert not is_mounted(Path(places[1]))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_does_its_work_without_standard_streams(
    places: tuple[str, str], closed: str
) -> None:
    program = shlex.join(STEPFS)
    for words in (["mount", *places], ["ls", places[1]], ["append", f"{places[1]}/{SLUG}", "hi"]):
        answer = run(["bash", "-c", f"{program} {shlex.join(words)} {closed}"])
        assert (answer.returncode, answer.stderr) == (Exit.OK, "")
    assert "hi" in Path(places[1], SLUG, "history.jsonl").read_text()
    answer = run(["bash", "-c", f"{program} show {places[1]}/nobody_nowhere_1 {closed}"])
    assert answer.returncode == Exit.NOT_STEPFS


def _has_children(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())

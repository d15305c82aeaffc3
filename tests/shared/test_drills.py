"""Lines acknowledged while a host is cut off or part of the server is killed are stored once (G15, G25).

The parts are found among the running processes; a part that the fixture lacks is skipped.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.shared.two_hosts import Host, at_once, part, until, user

pytestmark = [
    pytest.mark.skipif("SCRATCH" not in os.environ, reason="inside a fixture of make test-shared"),
    pytest.mark.timeout(600),
]
SLUG = "crab_tg-42_1"
RIGHT = frozenset({errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN})
"""The errnos that a writer may get while the server is away."""
ENOUGH = 10
AWAY_SECONDS = 3
GRACE_SECONDS = 12
"""Grace period of a restarted NFS server, in which nothing new can be opened."""


def keep_writing(host: Host, seconds: float, out: Path) -> None:
    """Append line after line, and record which were acknowledged and which failed.

    A client that was cut off may reconnect late, so writing continues until there are enough lines.
    """
    end, number = time.monotonic() + seconds, 0
    acknowledged, failed = list[int](), list[int]()
    while (now := time.monotonic()) < end or (len(acknowledged) <= ENOUGH and now < end + 60):
        try:
            host.write(SLUG, [user(f"{host.on} {number}")])
            acknowledged.append(number)
        except OSError as error:
            assert error.errno in RIGHT, error
            failed.append(number)
        number += 1
        time.sleep(0.02)
    out.write_text(json.dumps([acknowledged, failed]))


def assert_kept(hosts: tuple[Host, Host], outs: list[Path]) -> None:
    """Each acknowledged line must be there once, in order; a failed one at most once."""
    found = hosts[0].contents(SLUG)
    assert hosts[1].contents(SLUG) == found
    for host, out in zip(hosts, outs, strict=True):
        acknowledged, failed = json.loads(out.read_text())
        said = [int(text.split()[1]) for text in found if text.split()[0] == host.on]
        assert said == sorted(set(said))
        assert set(acknowledged) <= set(said) <= {*acknowledged, *failed}
        print(f"{host.on}: {len(acknowledged)} lines acknowledged, {len(failed)} failed")
        assert len(acknowledged) > ENOUGH, "too few to prove anything"


def disturbed(hosts: tuple[Host, Host], seconds: float, disturb: Callable[[], None]) -> None:
    a, b = hosts
    (a.path / SLUG).mkdir()
    until((b.path / SLUG).is_dir)
    outs = [host.path.parent / f"{host.on}.json" for host in hosts]
    at_once(
        disturb, *(partial(keep_writing, h, seconds, o) for h, o in zip(hosts, outs, strict=True))
    )
    assert_kept(hosts, outs)


@pytest.mark.guarantee("G25a", "G15c")
def test_a_host_that_is_cut_off_for_20_seconds_loses_nothing(hosts: tuple[Host, Host]) -> None:
    def cut() -> None:
        time.sleep(2)
        subprocess.run(["link-b", "down"], check=True, timeout=10)
        time.sleep(part(20))
        subprocess.run(["link-b", "up"], check=True, timeout=10)

    disturbed(hosts, part(20) + 15, cut)


@pytest.mark.guarantee("G25a", "G15c")
@pytest.mark.parametrize("kill", ["brick", "redis", "nfsd", "mountd"])
def test_a_part_of_the_server_that_is_killed_loses_nothing(
    hosts: tuple[Host, Host], kill: str
) -> None:
    found = PARTS[kill]()
    if found is None:
        pytest.skip(f"no {kill} here")
    seconds, disturb = found

    def later() -> None:
        time.sleep(2)
        disturb()

    disturbed(hosts, seconds, later)


Part = tuple[float, Callable[[], None]] | None
"""For how many seconds lines are written, and the function that kills the part meanwhile."""


def brick() -> Part:
    """The second of Gluster's two replicas; the first has the casting vote if one is left."""
    found = processes("glusterfsd", "bricks/2/")
    return (12, partial(killed, found)) if found else None


def redis() -> Part:
    """JuiceFS' metadata server; it restarts from its append-only file."""
    found = processes("redis-server", ":6399")
    if not found:
        return None
    directory = os.readlink(f"/proc/{found[0]}/cwd")

    def kill() -> None:
        killed(found)
        time.sleep(AWAY_SECONDS)
        started(
            *("redis-server", "--port", "6399", "--bind", "10.9.0.1", "--protected-mode", "no"),
            *("--dir", directory, "--appendonly", "yes", "--save", ""),
        )

    return 20, kill


def nfsd() -> Part:
    """The kernel's NFS server, whose threads are restarted; clients reclaim their open files."""
    if not Path("/proc/fs/nfsd/threads").exists():
        return None

    def kill() -> None:
        subprocess.run(["rpc.nfsd", "0"], check=True, timeout=30)
        time.sleep(AWAY_SECONDS)
        subprocess.run(["rpc.nfsd", "-N", "3", "-V", "4.2", "8"], check=True, timeout=30)

    return 20 + GRACE_SECONDS, kill


def mountd() -> Part:
    """The daemon that tells the kernel's server who may mount what."""
    found = processes("rpc.mountd", "")
    if not found:
        return None

    def kill() -> None:
        killed(found)
        time.sleep(AWAY_SECONDS)
        subprocess.run(["rpc.mountd", "-N", "3"], check=True, timeout=30)

    return 20, kill


PARTS: dict[str, Callable[[], Part]] = {
    "brick": brick,
    "redis": redis,
    "nfsd": nfsd,
    "mountd": mountd,
}


def processes(program: str, word: str) -> list[int]:
    """The processes of that program with `word` in their arguments."""
    return [int(at.name) for at in Path("/proc").glob("[0-9]*") if runs(at, program, word)]


def runs(process: Path, program: str, word: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:
        return False
    name = words.partition(b"\0")[0].split(b" ")[0]
    return name.endswith(program.encode()) and word.encode() in words


def killed(found: list[int]) -> None:
    for process in found:
        os.kill(process, signal.SIGKILL)


def started(*command: str) -> None:
    """Start a part of the server so that it outlives this process."""
    subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

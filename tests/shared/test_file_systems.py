"""Runs the tests of two hosts on real shared file systems, each with two clients (G25 to G28).

`make test-shared` runs them; `SHARED_STORES` names the file systems, as scripts in
`fixtures/`. One that cannot come up here (status 77) is skipped, with the reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"
WANTED = os.environ.get("SHARED_STORES", "").split()
EVERYWHERE = ["test_two_hosts.py", "test_drills.py", "test_whole_life.py"]
STORIES = {
    "nfs": [*EVERYWHERE, "test_latency.py"],
    "seaweedfs": ["test_refused.py"],
    "slowfs": [*EVERYWHERE, "test_silent.py", "test_slow.py"],
}
CANNOT = 77
SECONDS = 1800


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("name", ["slowfs", "gluster", "juicefs", "nfs", "seaweedfs"])
def test_two_hosts_on(name: str) -> None:
    if name not in WANTED:
        pytest.skip(f"make test-shared SHARED_STORES={name}")
    stories = [Path(__file__).with_name(s) for s in STORIES.get(name, EVERYWHERE)]
    done = subprocess.run(
        [
            *(FIXTURES / f"{name}.sh", sys.executable, "-B", "-m", "pytest", "-q", "-rP"),
            *("-p", "no:cacheprovider", "-p", "no:xdist", *map(str, stories)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.strip())
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:]

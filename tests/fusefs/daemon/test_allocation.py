"""What was freed is not kept resident because of what was allocated after it (G23)."""

from __future__ import annotations

import subprocess
import sys

import pytest

MIB = 1 << 20
ROUNDS = 8
USE = f"""
import sys
from fusefs.daemon.allocation import return_large_blocks
if sys.argv[1] == "returned":
    return_large_blocks()
kept = [bytearray({31 * MIB})]
kept.clear()
for number in range({ROUNDS}):
    large = bytearray(b"x") * ({15 * MIB} + number * {MIB})
    kept.append(bytearray(200_000))
    del large
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


def resident(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", USE, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.guarantee("G23d")
def test_large_blocks_that_were_freed_are_not_resident() -> None:
    assert resident("returned") + 20 * MIB < resident("kept")

"""The commands of README.md work on bare roots of the supported releases, as root and as a user."""

from __future__ import annotations

import shlex

import pytest

from tests.container.machine import NoMachineError
from tests.container.root import SOURCE, Root
from tests.support.readme import blocks

BARE = "ca-certificates,make,sudo"
USER = "ann"

CHECKOUT = f"""
useradd --create-home --shell /bin/bash {USER}
echo '{USER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{USER}
mkdir /checkout
tar -C {SOURCE} --exclude=.venv --exclude=.git --exclude=build -cf - . | tar -C /checkout -xf -
[ -n "$(find /dev/fuse -perm -0666)" ] || chmod 0666 /dev/fuse
rm -f /etc/mtab
"""
"""A checkout, and a user who may use sudo; nothing has booted, so there is no /etc/mtab."""

COMMANDS = f"""
cd /checkout
make demo >/tmp/demo 2>&1 || {{ cat /tmp/demo; exit 1; }}
grep -c 'And now from the shell' /tmp/demo
bash -c {shlex.quote(blocks()["session"])} 2>/tmp/complaints
cat /tmp/complaints
"""


@pytest.mark.releases
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("who", ["root", USER])
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_the_demo_and_the_session_work_as_they_are(suite: str, who: str) -> None:
    as_who = f"chown -R {who} /checkout; su {who} -c {shlex.quote('set -eu;' + COMMANDS)}"
    try:
        said = Root(suite, BARE).sh(CHECKOUT + as_who, seconds=1500).splitlines()
    except NoMachineError as reason:
        pytest.skip(f"no container can be made here: {reason}")
    assert int(said[0]) >= 2  # once where it is appended, once where it is read back
    assert "crab_tg-42_1" in " ".join(said)
    assert '{"message":{"role":"user","content":"hello"}}' in said
    assert "refused" in said
    assert any("The journal filled the disk" in line for line in said)
    assert said[-1].endswith("write error: Invalid argument")

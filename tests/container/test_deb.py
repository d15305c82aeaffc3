"""The life of the Debian package: built, installed, used, and purged without a trace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.container.machine import NoMachineError, own_suite
from tests.container.root import SOURCE, Root

BUILD = "build-essential,ca-certificates,debhelper,libfuse3-dev,lintian,pkgconf,python3-dev,python3-venv"
BARE = "ca-certificates"

BUILT = f"""
cp -r --no-preserve=ownership {SOURCE} /tmp/stepfs
rm -rf /tmp/stepfs/dist
/tmp/stepfs/packaging/deb.sh >/tmp/log 2>&1 || {{ tail -n 50 /tmp/log; exit 1; }}
cp /tmp/stepfs/dist/*.deb /out/
lintian --allow-root --fail-on error,warning /tmp/stepfs/dist/*.deb
"""

LIFE = """
export DEBIAN_FRONTEND=noninteractive
everything() { find /etc /usr /var/lib/systemd -path /usr/share/info -prune -o -print | sort; }
apt-get -qq update
apt-get -qq install -y --no-install-recommends fuse3 python3 >/dev/null 2>&1
everything >/tmp/before
apt-get -qq install -y --no-install-recommends /out/*.deb >/dev/null 2>&1

cd /tmp
stepfs --version
stepfs demo store >/dev/null
mkdir mnt other
stepfs mount store mnt
echo '{"role":"user","content":"from the package"}' >mnt/crab_tg-42_1/append
tail -n 1 mnt/crab_tg-42_1/history.jsonl
stepfs umount mnt
mount -t stepfs -o ro /tmp/store /tmp/other
tail -n 1 other/crab_tg-42_1/history.jsonl
stepfs umount other

for file in lib/systemd/system/stepfs@.service lib/systemd/user/stepfs.service \\
    share/bash-completion/completions/stepfs share/man/man1/stepfs.1.gz; do
    test -e /usr/$file || echo "there is no /usr/$file"
done
grep -rl /usr/local /usr/lib/systemd/*/stepfs* && exit 1

mkdir -p /etc/stepfs && touch /etc/stepfs/mine.conf
apt-get -qq purge -y stepfs >/dev/null 2>&1
test -e /etc/stepfs/mine.conf && rm -r /etc/stepfs
everything >/tmp/after
diff /tmp/before /tmp/after
"""


def suites() -> list[object]:
    """The releases that have a package; those other than this system's are tested on demand."""
    try:
        own = own_suite()
    except NoMachineError:
        own = ""
    other = pytest.mark.releases
    return [
        pytest.param(suite, marks=() if suite == own else other) for suite in ("bookworm", "trixie")
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("suite", suites())
def test_the_package_is_built_installed_used_and_purged(suite: str, tmp_path: Path) -> None:
    shared = {"/out": tmp_path}
    try:
        assert Root(suite, BUILD, shared).sh(BUILT) == ""
        (package,) = tmp_path.glob("stepfs_*.deb")
        assert re.fullmatch(r"stepfs_0\.1\.0\+deb1[23]_\w+\.deb", package.name)
        said = Root(suite, BARE, shared).sh(LIFE).splitlines()
    except NoMachineError as reason:
        pytest.skip(f"no container can be made here: {reason}")
    line = '{"message":{"role":"user","content":"from the package"}}'
    assert said == ["stepfs 0.1.0", line, line]

"""The life of the Debian package: built, installed, used, and purged without a trace."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.machine import Machine, NoMachineError, base, copied, own_suite
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


@pytest.fixture(scope="module", params=suites())
def package(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A release, and a directory with the package that was built on it."""
    suite, out = request.param, tmp_path_factory.mktemp("package")
    try:
        assert Root(suite, BUILD, {"/out": out}).sh(BUILT) == ""
    except NoMachineError as reason:
        pytest.skip(f"no container can be made here: {reason}")
    return suite, out


@pytest.mark.timeout(900)
def test_the_package_is_built_installed_used_and_purged(package: tuple[str, Path]) -> None:
    suite, out = package
    (built,) = out.glob("stepfs_*.deb")
    assert re.fullmatch(r"stepfs_0\.1\.0\+deb1[23]_\w+\.deb", built.name)
    said = Root(suite, BARE, {"/out": out}).sh(LIFE).splitlines()
    line = '{"message":{"role":"user","content":"from the package"}}'
    assert said == ["stepfs 0.1.0", line, line]


@pytest.fixture
def installed(package: tuple[str, Path], tmp_path: Path) -> Iterator[Machine]:
    """A booted system of that release with the package."""
    suite, out = package
    root = tmp_path / "root"
    copied(base(suite), root)
    shutil.copytree(out, root / "out")
    inside = [
        "systemd-nspawn",
        "--quiet",
        "-D",
        str(root),
        "--register=no",
        "--keep-unit",
        "--pipe",
    ]
    install = "apt-get -qq update; apt-get -qq install -y --no-install-recommends /out/*.deb"
    subprocess.run([*inside, "sh", "-euc", install], check=True, capture_output=True)
    try:
        with Machine(root) as machine:
            yield machine
    except NoMachineError as reason:
        pytest.skip(str(reason))
    finally:
        shutil.rmtree(root)


@pytest.mark.timeout(900)
def test_what_the_service_of_the_package_mounts_is_seen_by_everybody(installed: Machine) -> None:
    """Hardening that gives the unit its own view of the file system differs between releases."""
    installed.sh(
        "stepfs demo /srv/store; mkdir -p /etc/stepfs;"
        "printf 'STORE=/srv/store\\nMOUNTPOINT=/srv/sessions\\nOPTIONS=allow_other\\n'"
        " >/etc/stepfs/demo.conf; systemctl start stepfs@demo"
    )
    entry = '{"role":"user","content":"to the service"}'
    session = "/srv/sessions/crab_tg-42_1"
    assert installed.sh("findmnt -no FSTYPE /srv/sessions").strip() == "fuse.stepfs"
    said = installed.sh(f"echo '{entry}' >{session}/append; tail -n 1 {session}/history.jsonl")
    assert said == f'{{"message":{entry}}}\n'
    assert "to the service" in installed.sh("tail -n 1 /srv/store/crab_tg-42_1/step-*")
    installed.sh("systemctl stop stepfs@demo")
    assert installed.run("findmnt", "/srv/sessions", check=False).stdout == ""

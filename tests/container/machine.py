"""A Debian container with a real systemd as its first process."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = "dbus,dbus-user-session,fuse3,libpam-systemd,procps,python3,systemd-sysv"
BOOT_SECONDS = 60.0
DEVICES = ("/dev/fuse", "/dev/autofs")


class NoMachineError(Exception):
    """Such a container cannot be made here; the text says why."""


def base(suite: str | None = None, packages: str = PACKAGES) -> Path:
    """A root directory with the distribution, made once and kept in the user's cache.

    `suite` is the code name of a release of Debian; this system's own by default, so that its
    Python fits what is installed from here.
    """
    suite = suite or own_suite()
    key = hashlib.sha256(f"{suite} {packages}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepfs-test"
    root = cache / f"{suite}-{key}"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = root.with_suffix(f".{os.getpid()}")
        command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", suite, str(making)]
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if made.returncode != 0:
            shutil.rmtree(making, ignore_errors=True)
            raise NoMachineError(f"mmdebstrap failed: {made.stderr.strip().splitlines()[-1]}")
        making.rename(root)
    return root


def copied(source: Path, target: Path) -> None:
    """Copy a root directory, which is then its own to change and to boot."""
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)
    (target / "etc/hostname").write_text("stepfs\n")


def new_name() -> str:
    """A name for a container: no two may have the same at a time."""
    return f"stepfs-{secrets.token_hex(4)}"


def own_suite() -> str:
    """The code name of this system's release of Debian."""
    if os.geteuid() != 0:
        raise NoMachineError("a container with systemd needs root")
    for tool in ("mmdebstrap", "systemd-nspawn", "nsenter"):
        if shutil.which(tool) is None:
            raise NoMachineError(f"there is no {tool}")
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian" or "VERSION_CODENAME" not in release:
        raise NoMachineError("this system is not a release of Debian")
    return release["VERSION_CODENAME"]


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether `holds` becomes true within `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Machine:
    """A container booted from `root`, a directory that it may change."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> Machine:
        devices = [f"--bind={device}" for device in DEVICES if os.path.exists(device)]
        command = ["systemd-nspawn", "-D", str(self.root), "-b", "--register=no", "--keep-unit"]
        self._nspawn = subprocess.Popen(
            [*command, "--console=pipe", f"--machine={new_name()}", *devices],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if not eventually(self._booted, BOOT_SECONDS):
            self.__exit__()
            assert self._nspawn.stdout is not None
            said = self._nspawn.stdout.read().decode(errors="replace")
            raise NoMachineError(f"the container did not boot: {said[-500:]}")
        return self

    def __exit__(self, *_: object) -> None:
        """Everything in the container ends with its first process."""
        for leader in self._leader():
            subprocess.run(["kill", "-KILL", leader], check=False)
        self._nspawn.terminate()
        self._nspawn.wait(BOOT_SECONDS)

    def _leader(self) -> list[str]:
        pid = self._nspawn.pid
        try:
            return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:  # it has ended
            return []

    def _booted(self) -> bool:
        if self._nspawn.poll() is not None or not self._leader():
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def command(self, *arguments: str, user: str | None = None) -> list[str]:
        """The command that runs `arguments` in the container from this system."""
        if user is not None:
            uid = self.run("id", "-u", user).stdout.strip()
            runtime = f"XDG_RUNTIME_DIR=/run/user/{uid}"
            arguments = (
                "runuser",
                "-u",
                user,
                "--",
                "env",
                runtime,
                "HOME=/home/" + user,
                *arguments,
            )
        return ["nsenter", "-t", *self._leader(), "-a", *arguments]

    def run(
        self, *arguments: str, user: str | None = None, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, outside any unit's namespace."""
        done = subprocess.run(
            self.command(*arguments, user=user),
            input=text or "",
            text=True,
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def sh(self, script: str, user: str | None = None) -> str:
        return self.run("sh", "-euc", script, user=user).stdout

    def show(self, unit: str, name: str, *, user: str | None = None) -> str:
        """A property of a unit."""
        scope = ["--user"] if user else []
        return self.run("systemctl", *scope, "show", "-P", name, unit, user=user).stdout.strip()

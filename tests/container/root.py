"""A bare Debian to run commands in: nothing is booted, and changes are discarded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.container.machine import base, new_name

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = "/src"


@dataclass(frozen=True)
class Root:
    """The release `suite` with `packages`; each run starts from the unchanged root.

    The project is at `/src`, read-only, and each directory of `shared` at the path of its key.
    """

    suite: str
    packages: str
    shared: Mapping[str, Path] = field(default_factory=dict)

    def run(self, script: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a shell script as root, with the network and FUSE of this machine."""
        binds = [f"--bind={here}:{there}" for there, here in self.shared.items()]
        return subprocess.run(
            [
                "systemd-nspawn", "--quiet", "--directory", str(base(self.suite, self.packages)),
                "--volatile=overlay", "--as-pid2", "--register=no", "--keep-unit",
                f"--machine={new_name()}", "--console=pipe", "--bind=/dev/fuse",
                f"--bind-ro={PROJECT}:{SOURCE}", *binds, *_settings_of_pip(),
                "sh", "-euc", script,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )  # fmt: skip

    def sh(self, script: str, seconds: float = 600) -> str:
        """The output of a script, which must succeed."""
        done = self.run(script, seconds)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


def _settings_of_pip() -> list[str]:
    """This machine's pip settings for package sources, and the files that they name."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    files = [value for value in settings.values() if os.path.isabs(value) and os.path.exists(value)]
    return [
        *(f"--setenv={name}={value}" for name, value in settings.items()),
        *(f"--bind-ro={file}" for file in files),
    ]

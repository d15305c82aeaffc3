"""Record the terminal session that README.md shows, as a picture: `record.py [FILE.svg]`.

Every command below is really run, on its own terminal, on the sample store in a temporary
directory; what differs from run to run (times of day, paths, process numbers) is set to constants.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).resolve().parent
COLUMNS = 96
PROMPT = "\x1b[1;32m$ \x1b[0m"
UNIQUE = "stepfs"

COMMANDS = """\
ls store/crab_tg-42_1 | head -n 3      # what the daemon keeps: a file per step
stepfs mount store sessions
stepfs ls sessions --agent scout
head -n 13 sessions/crab_tg-42_1/history.md
grep -rl --include=history.md journal sessions

echo '{"role":"user","content":"And today?"}' > sessions/crab_tg-42_1/append
tail -n 1 sessions/crab_tg-42_1/history.jsonl
ls store/crab_tg-42_1 | tail -n 1      # the step that the line became

echo '{"role":"user",' > sessions/crab_tg-42_1/append
stepfs errors sessions
stepfs umount sessions
"""

CONSTANT = (
    (
        re.compile(r"(?<=\x1b\[32m)\d{4}-\d\d-\d\d \d\d:\d\d(?=.*\x1b\[36mwrite)"),
        "2026-11-24 12:00",
    ),
    (re.compile(r", pid \d+\) *"), ", pid 4242)"),
    (re.compile(r"^(?:/\S*)?bash: line \d+: ", re.MULTILINE), "bash: "),
)


def recorded(commands: str) -> str:
    """The terminal's output for the commands, each after a prompt, with colours."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            ["stepfs", "demo", "store"], cwd=place, check=True, stdout=subprocess.DEVNULL
        )
        os.mkdir(os.path.join(place, "sessions"))
        try:
            shown = [_shown(command, place) for command in commands.splitlines()]
        finally:
            unmount = ["fusermount3", "-uzq", os.path.join(place, "sessions")]
            subprocess.run(unmount, check=False)
    text = "".join(shown).replace("\r\n", "\n")
    for pattern, constant in CONSTANT:
        text = pattern.sub(constant, text)
    return text


def _shown(command: str, place: str) -> str:
    return f"{PROMPT}{command}\n{_in_terminal(command, place)}" if command else "\n"


def _in_terminal(command: str, place: str) -> str:
    controller, terminal = pty.openpty()
    environment = {
        **os.environ,
        "COLUMNS": str(COLUMNS),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PAGER": "cat",
        "TERM": "xterm-256color",
        "TZ": "UTC",
    }
    ran = subprocess.Popen(
        ["bash", "-c", command],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    parts = []
    try:
        while part := os.read(controller, 65536):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(controller)
    ran.wait()
    return b"".join(parts).decode()


def picture(text: str) -> str:
    """The terminal's text as an SVG that loads no font from another server."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(text), soft_wrap=False)
    svg = console.export_svg(title="stepfs", theme=MONOKAI, unique_id=UNIQUE)
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return (
        "\n".join(
            line.rstrip() for line in svg.replace("Fira Code", "DejaVu Sans Mono").splitlines()
        )
        + "\n"
    )


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "session.svg"
    target.write_text(picture(recorded(COMMANDS)))


if __name__ == "__main__":
    main()

"""Completion in bash, zsh and fish offers what the command line takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fusefs import config as options
from tests.packaging.test_manual import commands, flags

COMPLETIONS = Path(__file__).resolve().parents[2] / "systemd/completions"
BASH = """
source "$1"; shift
compopt() { :; }
COMP_WORDS=(stepfs "$@"); COMP_CWORD=$#
_stepfs
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "source $argv[1]; complete -C (string join ' ' -- stepfs $argv[2..])"


def offered(shell: str, *words: str) -> set[str]:
    file = COMPLETIONS / f"stepfs.{shell}"
    if shell == "bash":
        command: list[str | Path] = ["bash", "-c", BASH, "bash", file, *words]
    else:
        command = ["fish", "--no-config", "-c", FISH, file, *words]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    assert done.stderr == ""
    return {line.partition("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_offers_the_commands_and_their_flags(shell: str) -> None:
    assert offered(shell, "") == set(commands())
    for command, parser in commands().items():
        found = offered(shell, command, "-") - {"-h", "--help"}
        assert found == flags(parser), command


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_offers_the_mount_options_also_in_a_list(shell: str) -> None:
    wanted = {*options.SWITCHES, *options.VALUED} - {"rw"}
    for given in ("", "ro,"):
        found = {word.partition("=")[0] for word in offered(shell, "mount", "-o", given)}
        assert found == {given + option for option in wanted}


def test_zsh_knows_every_command_flag_and_option() -> None:
    file = COMPLETIONS / "stepfs.zsh"
    subprocess.run(["zsh", "-n", file], check=True)
    text = file.read_text()
    for command, parser in commands().items():
        assert f"'{command}:" in text
        assert all(flag in text for flag in flags(parser))
    assert all(f"'{option}[" in text for option in {*options.SWITCHES, *options.VALUED} - {"rw"})

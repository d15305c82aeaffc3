"""Killing a process before its first, second, … system call, until it runs to completion."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_TRACESYSGOOD = 1
_AT_CALL = signal.SIGTRAP | 0x80
_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def killed_at_each_call(action: Callable[[], object]) -> Iterator[bool]:
    """Run `action` in a child again and again, each time killed one system call later.

    Yields whether the child ran to completion, and stops after the first that did. The calling process
    must have no other threads: see `alone`.
    """
    calls = 0
    while True:
        ended = _killed_at(action, calls)
        yield ended
        if ended:
            return
        calls += 1


def alone(function: Callable[..., object], *arguments: object) -> None:
    """Call a function of a test module in a new process; raise if it fails there."""
    words = ", ".join(map(repr, map(str, arguments)))
    program = f"from {function.__module__} import {function.__name__} as f; f({words})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def _killed_at(action: Callable[[], object], calls: int) -> bool:
    child = os.fork()
    if child == 0:
        _ptrace(_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            action()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
    _ptrace(_SETOPTIONS, child, None, _TRACESYSGOOD)
    stops, delivered = 0, 0
    while True:
        _ptrace(_SYSCALL, child, None, delivered)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return True
        at_call = os.WSTOPSIG(status) == _AT_CALL
        delivered = 0 if at_call else os.WSTOPSIG(status)
        if at_call and stops == 2 * calls:  # ptrace stops at the entry and at the exit of each call
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        stops += at_call

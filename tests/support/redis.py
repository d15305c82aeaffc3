"""A real Redis server for one test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import until

NO_REDIS = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")


class Redis:
    """A server on its own Unix socket, without persistence; with `port` on that local port too."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        self._socket = directory / "redis.sock"
        self._port = port
        self.url = f"redis://127.0.0.1:{port}" if port else f"unix://{self._socket}"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._server = subprocess.Popen(
            [
                *("redis-server", "--bind", "127.0.0.1", "--port", str(self._port)),
                *("--unixsocket", self._socket, "--save", ""),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        until(self._answers)

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(10)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Stop the server from answering, without closing its connections."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._server.pid, signal.SIGCONT)

    def publish(self, channel: str, messages: Sequence[bytes]) -> None:
        """Publish messages as any client may."""
        with self._connected() as connection:
            for message in messages:
                words = (b"PUBLISH", channel.encode(), message)
                parts = [b"*%d\r\n" % len(words)]
                parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
                connection.sendall(b"".join(parts))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._socket))
            yield connection

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), self._connected() as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(10).startswith(b"+PONG")
        return False

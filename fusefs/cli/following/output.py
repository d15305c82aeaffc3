"""What a follower prints: steps and, in their place between them, notices."""

from __future__ import annotations

from typing import BinaryIO, TextIO

import orjson

from storage.errors import printable
from storage.render.pieces import visible


class Output:
    """Steps as lines on `out`, notices as sentences on `err`; as JSON both as objects on `out`.

    Where many sessions are followed, lines and sentences are labelled by their session. What is printed
    goes out before what comes after it.
    """

    def __init__(self, out: BinaryIO, err: TextIO, *, labelled: bool, as_json: bool) -> None:
        self._out = out
        self._err = err
        self._labelled = labelled
        self._as_json = as_json

    def fileno(self) -> int:
        """The stream that lines are written to."""
        return self._out.fileno()

    def step(self, session: str, number: int, line: bytes) -> None:
        """Print an entry as it is stored."""
        if self._as_json:
            head = orjson.dumps({"session": printable(session), "step": number})[:-1]
            line = head + b',"entry":' + line.rstrip(b"\n") + b"}\n"
        elif self._labelled:
            line = printable(session).encode() + b"\t" + line
        self._out.write(line)

    def notice(self, session: str, sentence: str) -> None:
        """Tell what happened beside."""
        if self._as_json:
            self._out.write(
                orjson.dumps({"session": printable(session), "notice": sentence}) + b"\n"
            )
            return
        self.flush()
        label = f"{session}: " if self._labelled else ""
        print(f"stepfs: {visible(label + sentence)}", file=self._err, flush=True)

    def flush(self) -> None:
        """See to it that all is printed."""
        self._out.flush()

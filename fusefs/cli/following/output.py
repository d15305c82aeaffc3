"""Output of `stepfs follow`: steps, with notices in order between them."""

from __future__ import annotations

from typing import BinaryIO, TextIO

import orjson

from storage.errors import printable
from storage.render.pieces import visible


class Output:
    """Steps as lines on `out`, notices as sentences on `err`; as JSON both as objects on `out`.

    If many sessions are followed, lines and sentences are labelled with their session. The order of both
    streams is kept.
    """

    def __init__(self, out: BinaryIO, err: TextIO, *, labelled: bool, as_json: bool) -> None:
        self._out = out
        self._err = err
        self._labelled = labelled
        self._as_json = as_json

    def fileno(self) -> int:
        """The descriptor of the stream to which lines are written."""
        return self._out.fileno()

    def step(self, session: str, number: int, line: bytes) -> None:
        """Print an entry, as it is stored."""
        if self._as_json:
            head = orjson.dumps({"session": printable(session), "step": number})[:-1]
            line = head + b',"entry":' + line.rstrip(b"\n") + b"}\n"
        elif self._labelled:
            line = printable(session).encode() + b"\t" + line
        self._out.write(line)

    def notice(self, session: str, sentence: str) -> None:
        """Print a notice about anything else that has happened."""
        if self._as_json:
            self._out.write(
                orjson.dumps({"session": printable(session), "notice": sentence}) + b"\n"
            )
            return
        self.flush()
        label = f"{session}: " if self._labelled else ""
        print(f"stepfs: {visible(label + sentence)}", file=self._err, flush=True)

    def flush(self) -> None:
        """Flush everything."""
        self._out.flush()

"""What the program logs while a test runs in the same process."""

from __future__ import annotations

import logging

from fusefs.failures import NOTICE


class Logged(logging.Handler):
    """Collects log messages from level notice up."""

    def __init__(self) -> None:
        super().__init__(NOTICE)
        self.lines: list[str] = []
        self._loggers = [logging.getLogger(name) for name in ("fusefs", "storage")]
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.addHandler(self)
            logger.setLevel(NOTICE)
            logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def stop(self) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = True

"""The log file that OPNFV Doctor's profiler reads: `2026-01-02 03:04:05,678 file.py 12 INFO   message`.

It cuts lines at blanks, so where each word stands is the contract: date, time, file, line, level, then the
message from the sixth word on (source: OPNFV Doctor, tests/logger.py). Not for people. Needs the standard
library only: the consumer of a lab writes such a file too, and has no use for a server's imports.
"""

from __future__ import annotations

import logging
from pathlib import Path

LAYOUT = "%(asctime)s %(filename)s %(lineno)d %(levelname)-6s %(message)s"


def open_log(path: Path) -> logging.Logger:
    """A logger of its own, known to nobody else, that appends to `path`; OSError when it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.Logger(path.stem, logging.DEBUG)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(LAYOUT))
    logger.addHandler(handler)
    return logger


def format_seconds(at_ns: int) -> str:
    """A moment as such programs read it: seconds since the epoch with a fraction, one word."""
    return f"{at_ns // 10**9}.{at_ns % 10**9 // 1000:06d}"

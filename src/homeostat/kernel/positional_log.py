"""A log file for programs that cut lines at blanks: where each word stands is the contract.

`2026-01-02 03:04:05,678 file.py 12 INFO   message`: date, time, file, line, level, then the message from the
sixth word on (source: OPNFV Doctor, tests/logger.py). Not for people; facts go into the journal.
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


def seconds(at_ns: int) -> str:
    """A moment as such programs read it: seconds since the epoch with a fraction, one word."""
    return f"{at_ns // 10**9}.{at_ns % 10**9 // 1000:06d}"

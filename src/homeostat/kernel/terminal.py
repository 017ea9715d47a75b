"""The terminal: log lines, tables, one-line errors, exit codes, and times and durations given as arguments.

Machines get `--json`. Exit codes: 0 done; 1 a set point is broken, or the server cannot write or hear
(`status`); 2 bad input; 3 not now (no server, port taken, already running, store full); 4 no such thing; 5
not allowed; 6 a file of ours is damaged; 10 to 13 the verdict of a drill, when it is not PASS. Facts go into
the journal, never only into the log, so that a line that no disk or reader takes is dropped and ends no
process.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, TextIO

from homeostat.kernel import errors

BROKEN, BAD_INPUT, NOT_NOW, NOT_FOUND, NOT_ALLOWED, DAMAGED = 1, 2, 3, 4, 5, 6
CANNOT_SUCCEED = frozenset({DAMAGED})
"""Codes of a process that need not be started again: a person has to do something first."""
ERROR_PREFIX = "homeostat: "

_CODES: tuple[tuple[type[errors.HomeostatError], int], ...] = (
    (errors.BadInput, BAD_INPUT),
    (errors.NotFound, NOT_FOUND),
    (errors.NotAllowed, NOT_ALLOWED),
    (errors.AlreadyRunning, NOT_NOW),
    (errors.CorruptState, DAMAGED),
    (errors.RetryLater, NOT_NOW),
)

_STATES = {
    "green": ("kept", "up", "present", "cleared", "recovered", "delivered", "kept"),
    "red": ("broken", "down", "failed", "open", "lost", "given_up"),
    "yellow": ("unknown", "starting", "clearing", "pending", "stopped"),
}
_COLOURS = {state: colour for colour, states in _STATES.items() for state in states}


class LossyOutput(io.TextIOBase):
    """A standard stream for what may be lost: a line that cannot be written now is dropped.

    The disk that the output goes to is full, or its reader went away (ENOSPC, EPIPE). Nothing is buffered, so
    that neither a later line nor the end of the process meets what could not be written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._handle = stream.fileno()
        self._raw = io.FileIO(self._handle, "w", closefd=False)
        self._tty = stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        return self._handle

    def isatty(self) -> bool:
        return self._tty

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Never an OSError. What a slow pipe takes only in part is cut there."""
        left = memoryview(text.encode(errors="backslashreplace"))
        try:
            while left and (written := self._raw.write(left)):
                left = left[written:]
        except OSError:
            pass
        return len(text)


def drop_unwritable_output(*names: str) -> None:
    """From here on no line on these (`stdout`, `stderr`) ends the process: what cannot be written is lost."""
    for name in names:
        stream = getattr(sys, name)
        if not isinstance(stream, LossyOutput):
            try:
                stream.flush()
                setattr(sys, name, LossyOutput(stream))
            except (OSError, ValueError, AttributeError):
                continue  # it is closed, or no file: nothing that could be full


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the command with one line on stderr and the documented exit code; never a traceback."""
    try:
        yield
    except errors.HomeostatError as error:
        with suppress(OSError):
            print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
        raise SystemExit(
            next((code for kind, code in _CODES if isinstance(error, kind)), BAD_INPUT)
        ) from None


def show_json(value: object) -> None:
    """The API's own answer, for machines."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def show_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    """A table with one line a row; states in colour on a terminal.

    A column without a value in any row is left out. Where not even the longest words stand side by side,
    each row is a record of its own.
    """
    if not rows:
        print(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    cells = {name: [str("" if row.get(name) is None else row[name]) for row in rows] for name in columns}
    shown = [name for name in columns if any(cells[name])] or list(columns)
    titles = [name.replace("_", " ") for name in shown]
    words = [
        max(map(len, " ".join([title, *cells[name]]).split()))
        for name, title in zip(shown, titles, strict=True)
    ]
    if sum(words) + len(words) - 1 > console.width:
        _show_records(shown, rows)
        return
    lines = [max(map(len, (title, *cells[name]))) for name, title in zip(shown, titles, strict=True)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, width in zip(titles, _widths(words, lines, console.width), strict=True):
        table.add_column(title, overflow="fold", width=width)
    for row in zip(*(cells[name] for name in shown), strict=True):
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    console.print(table)


_GAP = 2
"""Between two columns."""


def _widths(words: Sequence[int], lines: Sequence[int], total: int) -> list[int | None]:
    """Where whole lines have no room: the longest words, and what is left for narrow columns first.

    So one long text folds, and not all that stands beside it. None: rich decides, which cuts words to make
    long lines shorter.
    """
    room = total - _GAP * (len(words) - 1)
    if sum(lines) <= room or sum(words) > room:
        return [None] * len(words)
    widths = list(words)
    for _ in range(room - sum(words)):
        folded = [each for each, width in enumerate(widths) if width < lines[each]]
        widths[min(folded, key=lambda each: widths[each])] += 1
    return list(widths)


def _show_records(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows below each other, without what is empty: for a terminal that is too narrow for a table."""
    for number, row in enumerate(rows):
        if number:
            print()
        show_record({name: row[name] for name in columns if row.get(name) not in (None, "")})


def show_record(record: Mapping[str, Any]) -> None:
    """One thing, a field a line."""
    width = max(len(name) for name in record)
    for name, value in record.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):<{width}}  {'' if shown is None else shown}")


def local_time(at: str | None) -> str:
    """The API's time for people: in the terminal's own zone, to the millisecond."""
    if not at:
        return ""
    moment = datetime.fromisoformat(at).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"^(\d{1,9})([smhd])$")


def parse_duration(field: str, text: str) -> timedelta:
    """`90s`, `15m`, `2h`, `7d`; BadInput for anything else."""
    found = _DURATION.match(text)
    if found is None:
        raise errors.BadInput(field, text, "a number and a unit: 90s, 15m, 2h or 7d")
    return timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])


def parse_time(field: str, text: str) -> datetime:
    """An ISO 8601 time; without a zone it is this machine's. BadInput for anything else."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise errors.BadInput(
            field, text, "a time such as 2026-11-21T08:00 or 2026-11-21T07:00:00Z"
        ) from None


def parse_time_or_age(field: str, text: str, now: datetime) -> datetime:
    if _DURATION.match(text):
        return now - parse_duration(field, text)
    try:
        return parse_time(field, text)
    except errors.BadInput as error:
        raise errors.BadInput(field, text, f"{error.accepted}, or 2h for two hours ago") from None


def configure_logging(level: str = "info") -> None:
    """Log to stderr from `level` (debug, info, warning, error) on; colours only on a terminal."""
    import structlog  # here: the command line logs nothing and starts without it

    drop_unwritable_output("stderr")
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # What libraries say through the standard library: from warnings on, in the same place.
    logging.basicConfig(
        stream=sys.stderr,
        level=max(number, logging.WARNING),
        format="%(asctime)s [%(levelname)s] %(name)s: %(message)s",
        force=True,
    )

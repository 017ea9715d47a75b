"""What people see in the terminal: tables, one-line errors, exit codes. Machines get `--json`.

Exit codes: 0 done; 1 a promise is broken (`status`); 2 bad input; 3 not now (no server, port taken, already
running, store full); 4 no such thing; 5 not allowed; 6 a file of ours is damaged; 10 to 13 the verdict of a
drill, when it is not PASS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from homeostat.kernel.errors import (
    AlreadyRunning,
    BadInput,
    CorruptState,
    HomeostatError,
    NotAllowed,
    NotFound,
    RetryLater,
)

BROKEN, BAD_INPUT, NOT_NOW, NOT_FOUND, NOT_ALLOWED, DAMAGED = 1, 2, 3, 4, 5, 6
CANNOT_SUCCEED = frozenset({DAMAGED})
"""Codes of a process that need not be started again: a person has to do something first."""
ERROR_PREFIX = "homeostat: "

_CODES: tuple[tuple[type[HomeostatError], int], ...] = (
    (BadInput, BAD_INPUT),
    (NotFound, NOT_FOUND),
    (NotAllowed, NOT_ALLOWED),
    (AlreadyRunning, NOT_NOW),
    (CorruptState, DAMAGED),
    (RetryLater, NOT_NOW),
)

_STATES = {
    "green": ("kept", "up", "present", "cleared", "delivered", "kept"),
    "red": ("broken", "down", "failed", "open", "lost", "given_up"),
    "yellow": ("unknown", "starting", "clearing", "pending", "stopped"),
}
_COLOURS = {state: colour for colour, states in _STATES.items() for state in states}


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the command with one line on stderr and the documented exit code; never a traceback."""
    try:
        yield
    except HomeostatError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
        raise SystemExit(
            next((code for kind, code in _CODES if isinstance(error, kind)), BAD_INPUT)
        ) from None


def show_json(value: object) -> None:
    """The API's own answer, for machines."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def show_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    """A table with one line a row; states in colour on a terminal."""
    if not rows:
        print(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        cells = (str("" if row.get(column) is None else row[column]) for column in columns)
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def show_record(record: Mapping[str, Any]) -> None:
    """One thing, a field a line."""
    width = max(len(name) for name in record)
    for name, value in record.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):<{width}}  {'' if shown is None else shown}")


def when(at: str | None) -> str:
    """The API's time for people: in the terminal's own zone, to the millisecond."""
    if not at:
        return ""
    moment = datetime.fromisoformat(at).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"

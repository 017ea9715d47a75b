"""The parts that all commands share: two options, the question to the server, and its answer.

Apart from `terminal`, so that no process loads typer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.kernel.client import Client, path_segment
from homeostat.kernel.terminal import errors_in_one_line, show_json, show_record, show_table

Directory = Annotated[
    Path | None, typer.Option("--dir", help="State directory. [default: HOMEOSTAT_DIR, else ./.homeostat]")
]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as JSON, for machines.")]

Answer = dict[str, Any]


def ask(
    directory: Path | None,
    method: str,
    *path: str,
    body: object = None,
    **query: str | int | Sequence[str] | None,
) -> Any:
    """The server's answer to `/api/v1/<path>`; an error ends the command with its line and exit code."""
    with errors_in_one_line():
        where = "".join(f"/{path_segment(part)}" for part in path)
        return Client.find(directory).call(method, where, body, **query)


def show_answer(answer: Answer, as_json: bool, for_people: Callable[[Answer], Answer] = dict) -> None:
    """One thing, as JSON or a field a line."""
    if as_json:
        show_json(answer)
    else:
        show_record(for_people(answer))


def show_items(
    answer: Answer, as_json: bool, columns: Sequence[str], empty: str, for_people: Callable[[Answer], Answer]
) -> None:
    """A list, as JSON or a table."""
    if as_json:
        show_json(answer)
    else:
        show_table(columns, [for_people(row) for row in answer["items"]], empty)

"""homeostat journal: verifies and exports the database without a server. Reads only; may run beside one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from homeostat.kernel.cli import AsJson, Directory
from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import BadInput, CorruptState
from homeostat.kernel.terminal import DAMAGED, errors_in_one_line, show_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

commands = typer.Typer(help="The journal: check it, write it out.", no_args_is_help=True)
Config = Annotated[Path | None, typer.Option("--config", help="server.yaml; instead of --dir.")]

_TELLS_EVERY_S = 2.0


class VerifyProgress:
    """One line on stderr every 2 s, so that short runs say nothing."""

    def __init__(self, total: int) -> None:
        self._total, self._told_s, self._shown = total, time.monotonic(), False

    def at(self, number: int) -> None:
        """This event is done."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELLS_EVERY_S:
            self._told_s, self._shown = now_s, True
            print(f"\revent {number} of {self._total}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """What is said next begins a line of its own."""
        if self._shown:
            print(file=sys.stderr)


@commands.command("verify")
def verify(config: Config = None, directory: Directory = None, as_json: AsJson = False) -> None:
    """Replay every event and compare with the tables. Exits 6 at the first difference.

    Example: homeostat journal verify --config server.yaml
    """
    from homeostat.server.replay import compare_with_tables, unlisted_tables

    with errors_in_one_line(), _database(config, directory) as (connection, head):
        progress = VerifyProgress(head)
        replay, wrong = compare_with_tables(connection, lambda replay: progress.at(replay.last))
        progress.end()
        kept = unlisted_tables(connection)
        if as_json:
            counts = {"first": replay.first, "last": replay.last, "unknown": replay.unknown}
            show_json({**counts, "difference": wrong, "unlisted_tables": kept})
        elif not wrong:
            print(f"events {replay.first} to {replay.last}: the tables are what they say")
            if replay.unknown:
                print(f"{replay.unknown} of them are of a kind that this version cannot read")
            for name, rows in kept.items():
                print(f"table {name}: {rows} rows kept of a component that is not installed; not compared")
        if wrong and as_json:
            raise SystemExit(DAMAGED)
        if wrong:
            raise CorruptState(f"{wrong}; restore the database from a backup, or ask what changed it by hand")


@commands.command("export")
def export(
    config: Config = None,
    directory: Directory = None,
    output: Annotated[Path | None, typer.Option(help="A new file; standard output otherwise.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only events after this number.")] = 0,
) -> None:
    """Write every event as one JSON object a line, oldest first.

    Example: homeostat journal export --output events.jsonl
    """
    with errors_in_one_line(), _database(config, directory) as (connection, head):
        if output is None:
            _write(connection, head, after, sys.stdout.buffer)
            return
        try:
            with output.open("xb") as file:
                _write(connection, head, after, file)
        except OSError as error:
            raise BadInput("--output", str(output), f"a new file ({error.strerror})") from error


def _write(connection: Connection, head: int, after: int, file: IO[bytes]) -> None:
    import orjson

    from homeostat.kernel.clock import iso
    from homeostat.kernel.journal import stream_events

    progress = VerifyProgress(head)
    for row in stream_events(connection, after):
        line: dict[str, Any] = {str(name): value for name, value in row._mapping.items()}
        line |= {"at": iso(row.at_ns), "payload": _payload(row.payload)}
        file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        progress.at(row.seq)
    file.flush()
    progress.end()


def _payload(text: str) -> object:
    """As JSON; what is none is written out as the text that it is."""
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


@contextmanager
def _database(config: Path | None, directory: Path | None) -> Iterator[tuple[Connection, int]]:
    """One transaction that sees one moment, and the last number in it."""
    from sqlalchemy import func, select

    from homeostat.kernel import database
    from homeostat.kernel.config import load
    from homeostat.lab.plan import StateDirectory
    from homeostat.server.settings import server_settings

    file = config or StateDirectory(state_dir(directory)).server_config_file
    engine = database.open_engine(load(server_settings(), file).database_url, read_only=True)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection, connection.execute(select(func.max(database.journal.c.seq))).scalar() or 0
    finally:
        engine.dispose()

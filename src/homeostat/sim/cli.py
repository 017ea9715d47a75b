"""homeostat check: the invariants, against a database."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import NotFound
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, show_json

PATIENCE_S = 90_000.0
"""An hour more than a notice is tried for. What is unfinished and younger may still end well."""


def check(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="State directory. [default: HOMEOSTAT_DIR, else ./.homeostat]"),
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Look at this database instead of the directory's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check the invariants in the database; the server may run or not. Nothing is changed.

    Exit code 1 when one is violated. Example: homeostat check --dir /tmp/try
    """
    # The database's libraries take their time to import, and no other command of people needs them.
    from homeostat.kernel.database import open_engine
    from homeostat.sim.checkers import CHECKERS, Evidence, read_record

    with errors_in_one_line():
        engine = open_engine(database_url or _database_in(state_dir(directory)), read_only=True)
        try:
            record = read_record(engine)
        finally:
            engine.dispose()
        evidence = Evidence(record, now_ns=time.time_ns(), patience_s=PATIENCE_S)
        violations = [each for checker in CHECKERS for each in checker(evidence)]
    if as_json:
        show_json({"events": len(record.events), "violations": [asdict(each) for each in violations]})
    else:
        for each in violations:
            print(each)
        print(f"{len(record.events)} events, {len(record.notices)} notices, {len(violations)} violations")
    if violations:
        raise typer.Exit(BROKEN)


def _database_in(directory: Path) -> str:
    """The database of `homeostat up`, or of a server whose state directory this is."""
    for path in (directory / "server" / "homeostat.db", directory / "homeostat.db"):
        if path.exists():
            return f"sqlite:///{path}"
    raise NotFound(f"{directory}: holds no homeostat.db; give --dir, or --database-url for PostgreSQL")

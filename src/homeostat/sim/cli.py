"""The command `homeostat check`: checks the invariants in a database, whether or not the server runs."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.cli import AsJson, Directory
from homeostat.kernel.client import state_dir
from homeostat.kernel.errors import NotFound
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, show_json

PATIENCE_S = 90_000.0
"""An hour more than a notice is tried for. What is unfinished and younger may still end well."""


def check(
    directory: Directory = None,
    database_url: Annotated[
        str | None, typer.Option(help="Check this database, not the one of the state directory.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the invariants in the database, whether the server runs or not. Changes nothing.

    Exit code 1 when one is violated. Example: homeostat check --dir /tmp/try
    """
    # The database's libraries take their time to import, and no other command of people needs them.
    from homeostat.components import checkers
    from homeostat.kernel.database import open_engine
    from homeostat.sim.checkers import FRAME_CHECKERS, CheckerEvidence, read_database, uncommitted_acts

    with errors_in_one_line():
        engine = open_engine(database_url or _database_in(state_dir(directory)), read_only=True)
        try:
            record = read_database(engine)
        finally:
            engine.dispose()
        evidence = CheckerEvidence(record, now_ns=time.time_ns(), patience_s=PATIENCE_S)
        violations = [each for checker in (*FRAME_CHECKERS, *checkers()) for each in checker(evidence)]
    uncommitted = [
        {"action": event.action, "by": event.owner_of_act, "about": envelope.subject, "event": envelope.seq}
        for envelope, event in uncommitted_acts(record)
    ]
    if as_json:
        shown = [asdict(each) for each in violations]
        show_json({"events": len(record.events), "violations": shown, "uncommitted": uncommitted})
    else:
        for each in violations:
            print(each)
        if uncommitted:
            count = f"{len(uncommitted)} {'act' if len(uncommitted) == 1 else 'acts'}"
            print(f"I1: {count} with an intent that was only in memory, since the disk of a node was full:")
        for act in uncommitted:
            print(f"  {act['action']} by {act['by']} (event {act['event']})")
        print(f"{len(record.events)} events, {len(record.notices)} notices, {len(violations)} violations")
    if violations:
        raise typer.Exit(BROKEN)


def _database_in(directory: Path) -> str:
    """The database of `homeostat up`, or of a server whose state directory this is."""
    for path in (directory / "server" / "homeostat.db", directory / "homeostat.db"):
        if path.exists():
            return f"sqlite:///{path}"
    raise NotFound(f"{directory}: holds no homeostat.db; give --dir, or --database-url for PostgreSQL")

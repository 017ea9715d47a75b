"""Drills in the journal: sentences of their events, whom they concern, what may be removed, what a replay
follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from homeostat.contracts.events import drills
from homeostat.drills.store import HALT_SCOPE, claim_table, halt_table, run_table
from homeostat.kernel.clock import iso
from homeostat.kernel.journal import Envelope
from homeostat.kernel.journal_rules import (
    PrunableRows,
    ReplayedRows,
    ReplayedTable,
    ReplayRules,
    RetentionRules,
)


def sentence(event: object, _about: str) -> str:
    match event:
        case drills.DrillBegan():
            where = ", ".join((*event.hosts, *event.resources))
            return f"{event.by} began drill {event.drill} ({event.run}) on site {event.site}: {where}"
        case drills.DrillInjected():
            took_ms = (event.after_ns - event.before_ns) / 1e6
            return f"Drill {event.run} injected its fault at {iso(event.before_ns)}, within {took_ms:.0f} ms"
        case drills.DrillEnded(how="reported"):
            return f"Drill {event.run} ended: {event.verdict}"
        case drills.DrillEnded():
            return f"Drill {event.run} ended without a verdict: {event.reason}"
        case drills.DrillReported():
            return f"Drill {event.run} sent its report late: {event.verdict}"
        case drills.DrillsHalted():
            return f"{event.by} halted all drills: {event.why}"
        case drills.DrillsResumed():
            return f"{event.by} resumed drills"
        case _:
            return ""


def find_owners(_connection: Connection, envelopes: Sequence[Envelope]) -> Mapping[int, frozenset[str]]:
    """The projects whose drills these are."""
    owned = {type_.__name__ for type_ in drills.EVENTS}
    return {
        int(each.seq): frozenset({str(each.payload["owner"])}) for each in envelopes if each.kind in owned
    }


RETENTION = RetentionRules(
    prunable=(
        PrunableRows(
            "drills", run_table, run_table.c.run, run_table.c.ended_seq, run_table.c.ended_seq.is_not(None)
        ),
    )
)


def _follow(rows: ReplayedRows, seq: int, _subject: str, event: object) -> str:
    """A run begins, ends or reports; its claim comes and goes with it."""
    claims, halts = rows.of("drill_claim"), rows.of("drill_halt")
    match event:
        case drills.DrillBegan():
            told = {"site": event.site, "owner": event.owner, "by": event.by, "began_seq": seq}
            wrong = rows.begin("drill_claim", event.site, seq, {"run": event.run, "began_seq": seq})
            running = {"drill": event.drill, "ended_seq": None, "how": "running", "verdict": ""}
            return wrong or rows.begin("drill_run", event.run, seq, {**told, **running})
        case drills.DrillEnded():
            for site in [each for each, row in claims.items() if row["run"] == event.run]:
                del claims[site]
            ended = {"ended_seq": seq, "how": event.how, "verdict": event.verdict}
            return rows.end("drill_run", event.run, seq, ended)
        case drills.DrillReported():
            return rows.end("drill_run", event.run, seq, {"verdict": event.verdict})
        case drills.DrillsHalted():
            halts[HALT_SCOPE] = {"by": event.by, "owner": event.owner, "why": event.why}
        case drills.DrillsResumed():
            halts.pop(HALT_SCOPE, None)
    return ""


REPLAY = ReplayRules(
    tables=(
        ReplayedTable("drill_run", run_table, "run", "began_seq"),
        ReplayedTable("drill_claim", claim_table, "site", "began_seq"),
        ReplayedTable("drill_halt", halt_table, "scope"),
    ),
    follow=_follow,
)

"""Faults in the journal: sentences of their events, whom they concern, what may be removed, what a replay
follows.

Of a dead host a project sees that it is down, how it is shown and that it is back, when something of its own
ran there. What a person or a program wrote about a host (receipts, refusals, acts) may name anybody: it is
for administrators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Select, func, or_, select

from homeostat.contracts.events import faults
from homeostat.contracts.events.fleet import HostBack, HostDown, HostMarked
from homeostat.contracts.faults import Fault, FaultState
from homeostat.faults.notice_bridge import picture_of
from homeostat.faults.store import fault_table
from homeostat.faults.timeline_text import outage_range
from homeostat.kernel import journal_rules
from homeostat.kernel.database import slices
from homeostat.kernel.journal import Envelope
from homeostat.kernel.records import record_of
from homeostat.notices.matching import concerned_owners
from homeostat.notices.store import IS_OVER, outbox


def sentence(event: object, _about: str) -> str:
    match event:
        case faults.FaultRaised():
            return (
                f"Fault {event.fault} raised: {event.kind} of {event.about}, {event.severity}: {event.reason}"
            )
        case faults.FaultCleared():
            if event.superseded_by:
                return f"Fault {event.fault} superseded by {event.superseded_by} ({event.reason})"
            outage = outage_range(event.outage_lower_ms, event.outage_ms)
            return f"Fault {event.fault} cleared; outage {outage} ({event.reason})"
        case faults.GuestRecovered():
            outage = outage_range(event.outage_lower_ms, event.outage_upper_ms)
            return f"Guest {event.guest} is up again, on host {event.host}; outage {outage}"
        case faults.FaultInjected():
            return f"{event.by} injected a drill fault on host {event.host}: {event.what}"
        case faults.FaultInhibited():
            return f"No {event.kind} raised for {event.about}: {event.reason}"
        case _:
            return ""


_FAULT = fault_table.c
_IS_CLEARED = _FAULT.state == FaultState.CLEARED.value


def _bounds(before_ns: int) -> tuple[Select[Any], ...]:
    """Nothing behind a fault that is not over, was over only lately, or of which a notice is still due."""
    awaited = select(outbox.c.fault).where(~IS_OVER)
    young = or_(
        ~_IS_CLEARED,
        _FAULT.cleared_ns.is_(None),
        _FAULT.cleared_ns >= before_ns,
        _FAULT.id.in_(awaited),
    )
    return (select(func.min(_FAULT.raised_seq) - 1).where(young),)


RETENTION = journal_rules.RetentionRules(
    prunable=(journal_rules.PrunableRows("faults", fault_table, _FAULT.id, _FAULT.raised_seq, _IS_CLEARED),),
    bounds=_bounds,
)


def _follow(rows: journal_rules.ReplayedRows, seq: int, _subject: str, event: object) -> str:
    match event:
        case faults.FaultRaised():
            return rows.begin("fault", event.fault, seq, _row(event, seq))
        case faults.FaultCleared():
            ended: dict[str, object] = {
                "state": FaultState.CLEARED.value,
                "cleared_reason": event.reason,
                "outage_ms": event.outage_ms,
            }
            # Fields of later versions are compared where an event has them.
            if event.outage_lower_ms is not None:
                ended["outage_lower_ms"] = event.outage_lower_ms
            if event.superseded_by:
                ended["superseded_by"] = event.superseded_by
            return rows.end("fault", event.fault, seq, ended)
        case _:
            return ""  # says nothing of this table


def _row(event: faults.FaultRaised, seq: int) -> dict[str, object]:
    return {
        "kind": event.kind.value,
        "severity": event.severity.value,
        "about": event.about,
        "owner": event.owner,
        "reason": event.reason,
        "raised_seq": seq,
        "state": None,
        "cleared_reason": "",
        "outage_ms": None,
    }


def _compare(column: str, wanted: object, found: object) -> str:
    if column == "state" and wanted is None:  # open or clearing: the journal does not tell them apart
        cleared = found == FaultState.CLEARED.value
        return f"state is {found!r} in the table; no event cleared it" if cleared else ""
    return journal_rules.difference(column, wanted, found)


REPLAY = journal_rules.ReplayRules(
    tables=(journal_rules.ReplayedTable("fault", fault_table, "id", "raised_seq", _compare),),
    follow=_follow,
)


def find_owners(connection: Connection, envelopes: Sequence[Envelope]) -> Mapping[int, frozenset[str]]:
    """Of events about faults, and of those of dead hosts by the trace of the host's fault."""
    about: dict[str, list[int]] = {}
    traces: dict[str, list[int]] = {}
    for each in envelopes:
        noun, _, name = each.subject.partition("/")
        if isinstance(each.event, HostDown | HostMarked | HostBack):
            traces.setdefault(each.trace, []).append(int(each.seq))
        elif noun == "fault":
            about.setdefault(name, []).append(int(each.seq))
    found = dict(_of_faults(connection, fault_table.c.id, about))
    for seq, projects in _of_faults(connection, fault_table.c.trace, traces):
        found[seq] = found.get(seq, frozenset()) | projects
    return found


def _of_faults(
    connection: Connection, column: Column[str], wanted: Mapping[str, list[int]]
) -> Iterable[tuple[int, frozenset[str]]]:
    for names in slices(sorted(wanted)):
        for row in connection.execute(select(fault_table).where(column.in_(names))):
            projects = frozenset(map(str, concerned_owners(picture_of(record_of(Fault, row)))))
            yield from ((seq, projects) for seq in wanted[getattr(row, column.name)])

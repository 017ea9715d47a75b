"""Whose business an event of the journal is: explain, search and pages show no more than the API would.

Not the place where anything is decided about the event itself. Invariants: what nobody can name an owner of
belongs to `infrastructure`, that is, to administrators; of a dead host a project sees that it is down, how
it is shown and that it is back, when something of its own ran there, and of guests only its own. What a
person or a program wrote about a host (receipts, refusals, acts) may name anybody: it is for administrators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from homeostat.contracts.events.drills import (
    DrillBegan,
    DrillEnded,
    DrillInjected,
    DrillReported,
    DrillsHalted,
    DrillsResumed,
)
from homeostat.contracts.events.fleet import HostBack, HostDown, HostMarked
from homeostat.contracts.events.notices import SilenceCreated, SilenceEnded, SubscriptionCreated
from homeostat.contracts.nouns import INFRASTRUCTURE
from homeostat.faults.herald import picture_of
from homeostat.faults.store import fault_table, record
from homeostat.fleet.store import resource_table
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.journal import Envelope
from homeostat.notices.matching import concerned
from homeostat.notices.store import outbox

_AT_ONCE = 500
_ADMINISTRATORS = frozenset({INFRASTRUCTURE})
Projects = frozenset[str]


@dataclass(frozen=True, slots=True)
class Owners:
    """Whom subjects concern that only the tables know, and traces: those of faults."""

    of: Mapping[str, Projects] = field(default_factory=dict)
    traces: Mapping[str, Projects] = field(default_factory=dict)

    def projects(self, envelope: Envelope) -> Projects:
        """The projects that may read this event."""
        event = envelope.event
        if envelope.subject.startswith("resource/") and (named := envelope.payload.get("owner")):
            return frozenset({str(named)})
        match event:
            case SubscriptionCreated() | SilenceCreated() | SilenceEnded():
                return frozenset({event.owner})
            case DrillBegan() | DrillInjected() | DrillEnded() | DrillReported():
                return frozenset({event.owner})
            case DrillsHalted() | DrillsResumed():
                return frozenset({event.owner})
            case HostDown() | HostMarked() | HostBack():
                return self.traces.get(envelope.trace, _ADMINISTRATORS)
            case _:
                return self.of.get(envelope.subject, _ADMINISTRATORS)


def owners(connection: Connection, envelopes: Iterable[Envelope]) -> Owners:
    """Look up what the tables know of these events' subjects and traces."""
    events = list(envelopes)
    found: dict[str, Projects] = {}
    for noun, column, owner in (
        ("notice", outbox.c.key, outbox.c.owner),
        ("resource", resource_table.c.id, resource_table.c.owner),
    ):
        for names in _slices(_names(events, noun)):
            rows = connection.execute(select(column, owner).where(column.in_(names)))
            found |= {f"{noun}/{name}": frozenset({project}) for name, project in rows}
    for names in _slices(_names(events, "fault")):
        for row in connection.execute(select(fault_table).where(fault_table.c.id.in_(names))):
            found[f"fault/{row.id}"] = frozenset(concerned(picture_of(record(row))))
    traces: dict[str, Projects] = {}
    told = {each.trace for each in events if isinstance(each.event, HostDown | HostMarked | HostBack)}
    for names in _slices(sorted(told)):
        for row in connection.execute(select(fault_table).where(fault_table.c.trace.in_(names))):
            here = traces.get(row.trace, frozenset[str]())
            traces[row.trace] = here | frozenset(concerned(picture_of(record(row))))
    return Owners(found, traces)


def may_see(caller: Caller, projects: Projects) -> bool:
    """Administrators see all; others what concerns their project, and never what is `infrastructure`'s."""
    return caller.role is Role.ADMIN or any(map(caller.may_read, projects - _ADMINISTRATORS))


def visible(caller: Caller, envelopes: Sequence[Envelope], known: Owners) -> list[Envelope]:
    """Those of the events that this caller may see, in their order."""
    return [each for each in envelopes if may_see(caller, known.projects(each))]


def _names(events: Iterable[Envelope], noun: str) -> list[str]:
    subjects = {each.subject for each in events}
    return sorted(subject.partition("/")[2] for subject in subjects if subject.startswith(f"{noun}/"))


def _slices(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))

"""Whose business an event of the journal is, so that a page shows no more than the API would.

Not the place where anything is decided about the event itself. Invariant: what nobody can name an owner of
belongs to `infrastructure`, that is, to administrators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from homeostat.contracts.events.notices import SilenceCreated, SilenceEnded, SubscriptionCreated
from homeostat.contracts.nouns import INFRASTRUCTURE, ResourceId
from homeostat.faults.store import fault_table
from homeostat.fleet.model import Topology
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.journal import Envelope
from homeostat.notices.store import outbox

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Owners:
    """Owners of subjects that only the tables know: faults and notices."""

    of: Mapping[str, str] = field(default_factory=dict)

    def owner(self, envelope: Envelope, topology: Topology) -> str:
        """The project that may read this event."""
        subject, event = envelope.subject, envelope.event
        noun, _, name = subject.partition("/")
        if noun == "resource":
            named = envelope.payload.get("owner")
            row = topology.resources.get(ResourceId(name))
            return str(named) if named else INFRASTRUCTURE if row is None else row.owner
        if noun == "subscription" and isinstance(event, SubscriptionCreated):
            return event.owner
        if isinstance(event, SilenceCreated | SilenceEnded):
            return event.owner
        return self.of.get(subject, INFRASTRUCTURE)


def may_see(caller: Caller, owner: str) -> bool:
    """Administrators see all; others what their project owns, and never what is `infrastructure`'s."""
    return caller.role is Role.ADMIN or (owner != INFRASTRUCTURE and caller.may_read(owner))


def owners(connection: Connection, envelopes: Iterable[Envelope]) -> Owners:
    """Look up what the tables know of these events' subjects."""
    subjects = {each.subject for each in envelopes}
    found: dict[str, str] = {}
    for table, key, noun in ((fault_table, fault_table.c.id, "fault"), (outbox, outbox.c.key, "notice")):
        names = sorted(s.partition("/")[2] for s in subjects if s.startswith(f"{noun}/"))
        for start in range(0, len(names), _AT_ONCE):
            query = select(key, table.c.owner).where(key.in_(names[start : start + _AT_ONCE]))
            found |= {f"{noun}/{name}": owner for name, owner in connection.execute(query)}
    return Owners(found)


def visible(
    caller: Caller, envelopes: Sequence[Envelope], known: Owners, topology: Topology
) -> list[Envelope]:
    """Those of the events that this caller may see, in their order."""
    return [each for each in envelopes if may_see(caller, known.owner(each, topology))]

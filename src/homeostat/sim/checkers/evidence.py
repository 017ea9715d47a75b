"""What a checker looks at: a database as it is, and the story of a simulated run when there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import orjson
from sqlalchemy import Engine, select

from homeostat.contracts.events import CATALOGUE
from homeostat.fleet.model import Action
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.store import action_table
from homeostat.kernel.database import journal
from homeostat.kernel.journal import Envelope, Seq
from homeostat.notices.model import Notice, Subscription
from homeostat.notices.store import notices, subscriptions
from homeostat.sim.story import Story, Wrote

E = TypeVar("E")
_ALL = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be. `about` is a journal subject or an id, `says` a sentence."""

    invariant: str
    about: str
    says: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.about}: {self.says}"


@dataclass(frozen=True, slots=True)
class Record:
    """The tables that the invariants speak of."""

    events: tuple[Envelope, ...]
    notices: tuple[Notice, ...]
    actions: tuple[Action, ...]
    subscriptions: tuple[Subscription, ...]

    def of(self, kind: type[E]) -> Iterator[tuple[Envelope, E]]:
        """Events of one kind with their envelopes, in order."""
        for envelope in self.events:
            if isinstance(envelope.event, kind):
                yield envelope, envelope.event


@dataclass(frozen=True, slots=True)
class Evidence:
    """`story` is None outside the simulator.

    `now_ns` is the wall clock of the look; what is unfinished and younger than `patience_s` is no violation.
    In a simulated run that has come to rest nothing may be unfinished. `fleet` are the settings where hosts
    are probed and fenced, None where that is not known.
    """

    record: Record
    story: Story | None = None
    now_ns: int = 0
    patience_s: float = 0.0
    fleet: FleetSettings | None = None

    def overdue(self, since_ns: int, allowed_s: float = 0.0) -> bool:
        """Whether something that began then should have ended by now."""
        if self.story is not None:
            return True
        return self.now_ns - since_ns > (self.patience_s + allowed_s) * 1e9


Checker = Callable[[Evidence], Iterator[Violation]]


def committed_at(evidence: Evidence) -> dict[int, tuple[float, str]]:
    """When each event was committed and by which server, by its number. Empty without a story."""
    lines = () if evidence.story is None else evidence.story.lines
    return {
        seq: (line.at_s, line.actor)
        for line in lines
        if isinstance(line.fact, Wrote)
        for seq in line.fact.seqs
    }


def read_record(engine: Engine) -> Record:
    """Everything, in one transaction, from a read-only engine. StoreUnavailable, CorruptState."""
    with engine.connect() as connection:
        events = []
        for row in connection.execute(select(journal).order_by(journal.c.seq)):
            payload = orjson.loads(row.payload)
            events.append(
                Envelope(
                    seq=Seq(row.seq),
                    kind=row.kind,
                    version=row.version,
                    subject=row.subject,
                    cause=None if row.cause is None else Seq(row.cause),
                    trace=row.trace,
                    at_ns=row.at_ns,
                    origin=row.origin,
                    payload=payload,
                    event=CATALOGUE.decode(row.kind, row.version, dict(payload)),
                )
            )
        acts = tuple(
            Action(**dict(row._mapping))
            for row in connection.execute(select(action_table).order_by(action_table.c.intended_seq))
        )
        queued = notices(connection, owner=None, state=None, before=None, limit=_ALL)
        return Record(tuple(events), queued, acts, subscriptions(connection))

"""The evidence for a checker: a database as it is, and the history of a simulated run when there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import orjson
from sqlalchemy import Engine, select

from homeostat.components import COMPONENTS, catalogue
from homeostat.contracts.component import Component, Violation
from homeostat.fleet.gate import EARLIER_NAMES, is_armed
from homeostat.fleet.model import Action
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.store import action_table
from homeostat.kernel.database import journal
from homeostat.kernel.journal import Envelope, Seq
from homeostat.notices.model import Notice, Subscription
from homeostat.notices.store import notices, subscriptions
from homeostat.sim.history import RunHistory, SubmissionCommitted

E = TypeVar("E")
_ALL = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DatabaseContents:
    """The tables that the invariants speak of."""

    events: tuple[Envelope, ...]
    notices: tuple[Notice, ...]
    actions: tuple[Action, ...]
    subscriptions: tuple[Subscription, ...]

    def of(self, kind: type[E]) -> Iterator[tuple[Envelope, E]]:
        for envelope in self.events:
            if isinstance(envelope.event, kind):
                yield envelope, envelope.event


@dataclass(frozen=True, slots=True)
class CheckerEvidence:
    """`story` is None outside the simulator.

    `now_ns` is the wall clock of the look; what is unfinished and younger than `patience_s` is no violation.
    In a simulated run that has come to rest nothing may be unfinished. `fleet` are the settings where hosts
    are probed and fenced, None where that is not known.
    """

    record: DatabaseContents
    story: RunHistory | None = None
    now_ns: int = 0
    patience_s: float = 0.0
    fleet: FleetSettings | None = None

    def overdue(self, since_ns: int, allowed_s: float = 0.0) -> bool:
        """Whether something that began then should have ended by now."""
        if self.story is not None:
            return True
        return self.now_ns - since_ns > (self.patience_s + allowed_s) * 1e9


RECOVERY = "recovery"
"""The name by which people let dead hosts be fenced and their guests be started elsewhere."""


@dataclass(slots=True)
class ArmedComponents:
    """The components that people armed and disarmed, as the journal says, under old names, too."""

    said: dict[str, bool] = field(default_factory=dict)

    def take(self, name: str, armed: bool) -> None:
        """A person's word; under a present name it takes the place of those under earlier ones."""
        for earlier in EARLIER_NAMES.get(name, ()):
            self.said.pop(earlier, None)
        self.said[name] = armed

    def is_armed(self, name: str, by_settings: Sequence[str] | None) -> bool | None:
        """None: the settings are not known, and nobody said anything."""
        said = {name, *EARLIER_NAMES.get(name, ())} & self.said.keys()
        if by_settings is None and not said:
            return None
        return is_armed(name, (name,) if by_settings is None else by_settings, self.said)


Checker = Callable[[CheckerEvidence], Iterator[Violation]]


def committed_at(evidence: CheckerEvidence) -> dict[int, tuple[float, str]]:
    """When each event was committed and by which server, by its number. Empty without a story."""
    lines = () if evidence.story is None else evidence.story.lines
    return {
        seq: (line.at_s, line.actor)
        for line in lines
        if isinstance(line.fact, SubmissionCommitted)
        for seq in line.fact.seqs
    }


def read_database(engine: Engine, components: tuple[Component, ...] = COMPONENTS) -> DatabaseContents:
    """Everything, in one transaction, from a read-only engine. StoreUnavailable, CorruptState."""
    known = catalogue(components)
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
                    event=known.decode(row.kind, row.version, dict(payload)),
                )
            )
        acts = tuple(
            Action(**dict(row._mapping))
            for row in connection.execute(select(action_table).order_by(action_table.c.intended_seq))
        )
        queued = notices(connection, owner=None, state=None, before=None, limit=_ALL)
        return DatabaseContents(tuple(events), queued, acts, subscriptions(connection))

"""What the leader knows of drills without asking the database: claims, the halt, and whose faults are whose.

A copy of the tables, read before anything is decided and again when a commit had no answer. Used on one event
loop; changed only between a commit and the next entry of the fault path.
"""

from __future__ import annotations

from sqlalchemy import Connection

from homeostat.drills import store
from homeostat.drills.claims import LAPSE_NS, Claim, Claims, Halt, renewed, taken_over
from homeostat.drills.store import Run
from homeostat.drills.tags import TagIndex
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import Local, Seq


class KnownDrills:
    """`claims` is what holds now; others read it and never change it."""

    def __init__(self, readers: Readers, clock: Clock) -> None:
        self._readers, self._clock = readers, clock
        self._tags = TagIndex()
        self.claims = Claims()

    async def reload(self) -> None:
        """Read the tables. RetryLater."""
        now_ns = self._clock.mono_ns()

        def read(connection: Connection) -> tuple[tuple[Claim, ...], Halt | None, TagIndex]:
            claims, halt = store.load_claims(connection, now_ns), store.load_halt(connection)
            return claims, halt, TagIndex(store.load_spans(connection))

        claims, halt, self._tags = await self._readers.read(read)
        self.claims = taken_over(claims, self.claims, halt)

    def run_of(self, about: str, host: str, owner: str, raised: Seq | Local) -> str:
        """The run that a fault belongs to; empty for none."""
        return self._tags.run_of(about, host, owner, raised)

    def begun(self, row: Run, began: Seq) -> None:
        """It is committed: the site is this run's, and so are the faults there."""
        until_ns = self._clock.mono_ns() + LAPSE_NS
        self.claims = self.claims.with_claim(Claim(row.site, row.run, row.owner, row.by, until_ns))
        self._tags.add(row.span(began))

    def renewed(self, run: str) -> None:
        """Its tool lives."""
        self.claims = renewed(self.claims, run, self._clock.mono_ns())

    def ended(self, run: str, at: Seq) -> None:
        """It is committed: the site is free, and later faults are nobody's."""
        self.claims = self.claims.without(run)
        self._tags.end(run, at)

    def halted(self, halt: Halt | None) -> None:
        """It is committed: nothing runs, or (None) may run again."""
        self.claims = Claims(self.claims.by_site, halt)

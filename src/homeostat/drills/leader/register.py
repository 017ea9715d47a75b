"""The leader's register of drills: grants sites, renews claims, halts drills, records how runs ended.

One change at a time. Beginnings and ends go through the ingest path, where they have a place among the
faults; a renewal is a row and no event. A refusal is a Conflict with the field, and names the run or halt
in the way.

`KnownDrills` is the copy of the tables in memory: read before anything is decided and again when a commit
had no answer. Used on one event loop; changed only between a commit and the next entry of the ingest path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import structlog
from sqlalchemy import Connection

from homeostat.contracts.events import drills as events
from homeostat.contracts.nouns import DRILLS_SUBJECT, Owner, drill_subject
from homeostat.drills import store
from homeostat.drills.lapse import LAPSE_S
from homeostat.drills.leader import runs
from homeostat.drills.store import RunRow
from homeostat.kernel import journal
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import Conflict, NotFound, RetryLater


class KnownDrills:
    """`claims` is what holds now; others read it and never change it."""

    def __init__(self, readers: Readers, clock: Clock) -> None:
        self._readers, self._clock = readers, clock
        self._tags = runs.FaultTagIndex()
        self.claims = runs.SiteClaims()

    async def reload(self) -> None:
        """Read the tables. RetryLater."""
        now_ns = self._clock.mono_ns()

        def read(
            connection: Connection,
        ) -> tuple[tuple[runs.Claim, ...], runs.Halt | None, runs.FaultTagIndex]:
            claims, halt = store.load_claims(connection, now_ns), store.load_halt(connection)
            return claims, halt, runs.FaultTagIndex(store.load_spans(connection))

        claims, halt, self._tags = await self._readers.read(read)
        self.claims = runs.reloaded_claims(claims, self.claims, halt)

    def run_of(self, about: str, host: str, owner: str, raised: journal.Seq | journal.EventIndex) -> str:
        """The run that a fault belongs to; empty for none."""
        return self._tags.run_of(about, host, owner, raised)

    def begun(self, row: RunRow, began: journal.Seq) -> None:
        """It is committed: the site is this run's, and so are the faults there."""
        until_ns = self._clock.mono_ns() + runs.LAPSE_NS
        self.claims = self.claims.with_claim(runs.Claim(row.site, row.run, row.owner, row.by, until_ns))
        self._tags.add(row.span(began))

    def renewed(self, run: str) -> None:
        """Its tool lives."""
        self.claims = runs.renewed_claims(self.claims, run, self._clock.mono_ns())

    def ended(self, run: str, at: journal.Seq) -> None:
        """It is committed: the site is free, and later faults are nobody's."""
        self.claims = self.claims.without(run)
        self._tags.end(run, at)

    def halted(self, halt: runs.Halt | None) -> None:
        """It is committed: nothing runs, or (None) may run again."""
        self.claims = runs.SiteClaims(self.claims.by_site, halt)


LOOK_S = 1.0
LOOP = "drills"
_log = structlog.get_logger(LOOP)


@dataclass(frozen=True, slots=True)
class RegisterDependencies:
    """`add` is the write path's; `appender` is for rows that no event tells of."""

    known: KnownDrills
    add: journal.AddToEntry
    appender: journal.JournalAppender
    readers: Readers
    clock: Clock


class DrillRegister:
    """One for a server that leads. `run` is a task of its own."""

    def __init__(self, parts: RegisterDependencies) -> None:
        self._parts, self._known = parts, parts.known
        self._one = asyncio.Lock()

    async def begin(self, wanted: RunRow, caller: Caller) -> None:
        """The site is this run's; again for the same run of the same caller changes nothing.

        Conflict: drills are halted, another one has the site, or the id was used. RetryLater.
        """
        async with self._one:
            claims, now_ns = self._known.claims, self._parts.clock.mono_ns()
            if claims.halt is not None:
                why = claims.halt.words if caller.may_read(claims.halt.owner) else "halted"
                raise Conflict("drills", why, "no drill begins until `homeostat drill resume`")
            there = runs.claim_holder(claims, wanted.site, now_ns)
            if there is not None and (there.run, there.by) == (wanted.run, wanted.by):
                return
            if there is not None:
                mine = caller.may_read(there.owner)
                who = f"run {there.run}, begun by {there.by}" if mine else "another project's drill"
                raise Conflict("site", wanted.site, f"{who} has it; one drill at a time, wait until it ends")
            if await self._parts.readers.read(partial(store.load_run, run=wanted.run)) is not None:
                raise Conflict("run", wanted.run, "an id that no run had yet")
            for claim in runs.lapsed_claims(claims, now_ns):
                await self._lapse(claim.run, claim.owner)
            await self._parts.add(self._beginning(wanted))

    def _beginning(self, wanted: RunRow) -> journal.Addition:
        event = events.DrillBegan(
            wanted.run,
            wanted.drill,
            wanted.suite,
            wanted.site,
            wanted.hosts,
            wanted.resources,
            wanted.seed,
            Owner(wanted.owner),
            wanted.by,
        )

        def changes(first: int) -> tuple[journal.RowChange, ...]:
            return store.begun(replace(wanted, began_seq=journal.EventIndex(first)))

        draft = self._draft(event, drill_subject(wanted.run), "began", wanted.began_ns)
        return journal.Addition((draft,), changes, lambda seqs: self._known.begun(wanted, seqs[0]))

    async def renew(self, run: str) -> str | None:
        """The claim lasts longer. Why the tool must stop, None: it may go on. RetryLater."""
        async with self._one:
            known, clock = self._known, self._parts.clock
            words = runs.stop_reason(known.claims, run, clock.mono_ns())
            if known.claims.of(run) is None:
                return words
            # Through the appender: a server that does not lead any more must not say that all is well.
            change = store.renewal(run, clock.wall_ns())
            await self._parts.appender.append(journal.Submission(LOOP, changes=(change,)))
            known.renewed(run)
            # Asked again: it may have lapsed while the database took its time.
            return words or runs.stop_reason(known.claims, run, clock.mono_ns())

    async def injected(self, run: RunRow, before_ns: int, after_ns: int) -> None:
        """When the fault began, by the tool's wall clock; once, whatever is said later. RetryLater."""
        event = events.DrillInjected(run.run, Owner(run.owner), before_ns, after_ns)
        draft = self._draft(event, drill_subject(run.run), "injected")
        await self._parts.add(journal.Addition((draft,), lambda _: (), lambda _: None))

    async def finish(self, run: RunRow, verdict: str, report: str) -> None:
        """The report is in the database, and the site is free. The last report counts. RetryLater."""
        async with self._one:
            change = store.reported(run.run, verdict, report)
            if self._known.claims.of(run.run) is not None:
                await self._parts.add(self._ending(run.run, run.owner, "reported", verdict, (change,)))
                return
            event = events.DrillReported(run.run, Owner(run.owner), verdict)
            draft = self._draft(event, drill_subject(run.run), "reported")
            await self._parts.add(journal.Addition((draft,), lambda _: (change,), lambda _: None))

    def _ending(
        self, run: str, owner: str, how: str, verdict: str, more: tuple[journal.RowChange, ...] = ()
    ) -> journal.Addition:
        reason = "" if how == "reported" else f"nobody renewed its claim for {LAPSE_S:g} s"
        now_ns = self._parts.clock.wall_ns()
        event = events.DrillEnded(run, Owner(owner), how, verdict, reason)

        def changes(first: int) -> tuple[journal.RowChange, ...]:
            return (*store.ended(run, now_ns, how, journal.EventIndex(first)), *more)

        draft = self._draft(event, drill_subject(run), "ended", now_ns)
        return journal.Addition((draft,), changes, lambda seqs: self._known.ended(run, seqs[0]))

    async def _lapse(self, run: str, owner: str) -> None:
        _log.warning("drill stopped renewing its claim", run=run, after_s=LAPSE_S)
        await self._parts.add(self._ending(run, owner, "lapsed", ""))

    async def halt(self, caller: Caller, why: str) -> runs.Halt:
        """Every drill stops with its next renewal, none begins. RetryLater.

        A halt that the caller could not take back stays as it is: who replaced it could resume.
        """
        async with self._one:
            there = self._known.claims.halt
            if there is not None and not caller.may_write(there.owner):
                return there
            halt = runs.Halt(caller.name, caller.owner, why, self._parts.clock.wall_ns())
            draft = self._about_all(events.DrillsHalted(caller.name, Owner(caller.owner), why), halt.at_ns)
            await self._parts.add(
                journal.Addition((draft,), lambda _: store.halted(halt), lambda _: self._known.halted(halt))
            )
            return halt

    async def resume(self, caller: Caller) -> None:
        """Drills may begin again; nothing changes when they may anyway. RetryLater."""
        async with self._one:
            if self._known.claims.halt is None:
                return
            event = events.DrillsResumed(caller.name, Owner(caller.owner))
            draft = self._about_all(event, self._parts.clock.wall_ns())
            await self._parts.add(
                journal.Addition((draft,), lambda _: (store.resumed(),), lambda _: self._known.halted(None))
            )

    def _about_all(self, event: object, at_ns: int) -> journal.NewEvent:
        return self._draft(event, DRILLS_SUBJECT, str(at_ns), at_ns)

    def _draft(self, event: object, subject: str, word: str, at_ns: int | None = None) -> journal.NewEvent:
        moment_ns = self._parts.clock.wall_ns() if at_ns is None else at_ns
        trace = subject if subject != DRILLS_SUBJECT else f"{subject}/{word}"
        return journal.NewEvent(event, subject, moment_ns, LOOP, trace)

    async def find(self, run: str, may_read: Callable[[str], bool]) -> tuple[RunRow, str | None]:
        """A run and its report. NotFound when it is not there, or not for this reader."""
        found = await self._parts.readers.read(partial(store.load_run, run=run))
        if found is None or not may_read(found[0].owner):
            raise NotFound(f"there is no run {run!r}, or it is not yours to read")
        return found

    async def run(self) -> None:
        """Write down which claims have lapsed, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for claim in runs.lapsed_claims(self._known.claims, self._parts.clock.mono_ns()):
                try:
                    async with self._one:
                        current = self._known.claims.of(claim.run)
                        if current is not None and self._parts.clock.mono_ns() >= current.until_ns:
                            await self._lapse(claim.run, claim.owner)
                except RetryLater as error:
                    _log.warning("expired claim not removed yet", run=claim.run, reason=str(error))

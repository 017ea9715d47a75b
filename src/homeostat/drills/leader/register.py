"""The leader's register of drills: grants sites, takes renewals, halts, and writes down how each run ended.

One change at a time. Beginnings and ends go through the fault path, where they have a place among the faults;
a renewal is a row and no event. What is refused is a Conflict with the field, and says who is in the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import structlog

from homeostat.contracts.events.drills import (
    DrillBegan,
    DrillEnded,
    DrillInjected,
    DrillReported,
    DrillsHalted,
    DrillsResumed,
)
from homeostat.contracts.nouns import DRILLS_SUBJECT, Owner, drill_subject
from homeostat.drills import store
from homeostat.drills.claims import LAPSE_S, Halt, holder, lapsed, stop_words
from homeostat.drills.leader.known import KnownDrills
from homeostat.drills.store import Run
from homeostat.fleet.additions import Add, Addition
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import Conflict, NotFound, RetryLater
from homeostat.kernel.journal import Change, Draft, Local, Submission
from homeostat.notices.outcomes import Appends

LOOK_S = 1.0
LOOP = "drills"
_log = structlog.get_logger(LOOP)


@dataclass(frozen=True, slots=True)
class RegisterParts:
    """`add` is the fault path's; `appender` is for rows that no event tells of."""

    known: KnownDrills
    add: Add
    appender: Appends
    readers: Readers
    clock: Clock


class Register:
    """One for a server that leads. `run` is a task of its own."""

    def __init__(self, parts: RegisterParts) -> None:
        self._parts, self._known = parts, parts.known
        self._one = asyncio.Lock()

    async def begin(self, wanted: Run, caller: Caller) -> None:
        """The site is this run's; again for the same run of the same caller changes nothing.

        Conflict: drills are halted, another one has the site, or the id was used. RetryLater.
        """
        async with self._one:
            claims, now_ns = self._known.claims, self._parts.clock.mono_ns()
            if claims.halt is not None:
                why = claims.halt.words if caller.may_read(claims.halt.owner) else "halted"
                raise Conflict("drills", why, "no drill begins until `homeostat drill resume`")
            there = holder(claims, wanted.site, now_ns)
            if there is not None and (there.run, there.by) == (wanted.run, wanted.by):
                return
            if there is not None:
                mine = caller.may_read(there.owner)
                who = f"run {there.run}, begun by {there.by}" if mine else "another project's drill"
                raise Conflict("site", wanted.site, f"{who} has it; one drill at a time, wait until it ends")
            if await self._parts.readers.read(partial(store.load_run, run=wanted.run)) is not None:
                raise Conflict("run", wanted.run, "an id that no run had yet")
            for claim in lapsed(claims, now_ns):
                await self._lapse(claim.run, claim.owner)
            await self._parts.add(self._beginning(wanted))

    def _beginning(self, wanted: Run) -> Addition:
        event = DrillBegan(
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

        def changes(first: int) -> tuple[Change, ...]:
            return store.begun(replace(wanted, began_seq=Local(first)))

        draft = self._draft(event, drill_subject(wanted.run), "began", wanted.began_ns)
        return Addition((draft,), changes, lambda seqs: self._known.begun(wanted, seqs[0]))

    async def renew(self, run: str) -> str | None:
        """The claim lasts longer. Why the tool must stop, None: it may go on. RetryLater."""
        async with self._one:
            known, clock = self._known, self._parts.clock
            words = stop_words(known.claims, run, clock.mono_ns())
            if known.claims.of(run) is None:
                return words
            # Through the appender: a server that does not lead any more must not say that all is well.
            change = store.renewal(run, clock.wall_ns())
            await self._parts.appender.append(Submission(LOOP, changes=(change,)))
            known.renewed(run)
            # Asked again: it may have lapsed while the database took its time.
            return words or stop_words(known.claims, run, clock.mono_ns())

    async def injected(self, run: Run, before_ns: int, after_ns: int) -> None:
        """When the fault began, by the tool's wall clock; once, whatever is said later. RetryLater."""
        event = DrillInjected(run.run, Owner(run.owner), before_ns, after_ns)
        draft = self._draft(event, drill_subject(run.run), "injected")
        await self._parts.add(Addition((draft,), lambda _: (), lambda _: None))

    async def finish(self, run: Run, verdict: str, report: str) -> None:
        """The report is in the database, and the site is free. The last report counts. RetryLater."""
        async with self._one:
            change = store.reported(run.run, verdict, report)
            if self._known.claims.of(run.run) is not None:
                await self._parts.add(self._ending(run.run, run.owner, "reported", verdict, (change,)))
                return
            event = DrillReported(run.run, Owner(run.owner), verdict)
            draft = self._draft(event, drill_subject(run.run), "reported")
            await self._parts.add(Addition((draft,), lambda _: (change,), lambda _: None))

    def _ending(
        self, run: str, owner: str, how: str, verdict: str, more: tuple[Change, ...] = ()
    ) -> Addition:
        reason = "" if how == "reported" else f"nobody renewed its claim for {LAPSE_S:g} s"
        now_ns = self._parts.clock.wall_ns()
        event = DrillEnded(run, Owner(owner), how, verdict, reason)

        def changes(first: int) -> tuple[Change, ...]:
            return (*store.ended(run, now_ns, how, Local(first)), *more)

        draft = self._draft(event, drill_subject(run), "ended", now_ns)
        return Addition((draft,), changes, lambda seqs: self._known.ended(run, seqs[0]))

    async def _lapse(self, run: str, owner: str) -> None:
        _log.warning("the claim of a drill lapsed", run=run, after_s=LAPSE_S)
        await self._parts.add(self._ending(run, owner, "lapsed", ""))

    async def halt(self, caller: Caller, why: str) -> Halt:
        """Every drill stops with its next renewal, none begins. RetryLater.

        A halt that the caller could not take back stays as it is: who replaced it could resume.
        """
        async with self._one:
            there = self._known.claims.halt
            if there is not None and not caller.may_write(there.owner):
                return there
            halt = Halt(caller.name, caller.owner, why, self._parts.clock.wall_ns())
            draft = self._about_all(DrillsHalted(caller.name, Owner(caller.owner), why), halt.at_ns)
            adopt = partial(self._adopt_halt, halt)
            await self._parts.add(Addition((draft,), lambda _: store.halted(halt), adopt))
            return halt

    async def resume(self, caller: Caller) -> None:
        """Drills may begin again; nothing changes when they may anyway. RetryLater."""
        async with self._one:
            if self._known.claims.halt is None:
                return
            event = DrillsResumed(caller.name, Owner(caller.owner))
            draft = self._about_all(event, self._parts.clock.wall_ns())
            adopt = partial(self._adopt_halt, None)
            await self._parts.add(Addition((draft,), lambda _: (store.resumed(),), adopt))

    def _adopt_halt(self, halt: Halt | None, _: object) -> None:
        self._known.halted(halt)

    def _about_all(self, event: object, at_ns: int) -> Draft:
        return self._draft(event, DRILLS_SUBJECT, str(at_ns), at_ns)

    def _draft(self, event: object, subject: str, word: str, at_ns: int | None = None) -> Draft:
        moment_ns = self._parts.clock.wall_ns() if at_ns is None else at_ns
        trace = subject if subject != DRILLS_SUBJECT else f"{subject}/{word}"
        return Draft(event, subject, moment_ns, LOOP, trace)

    async def find(self, run: str, may_read: Callable[[str], bool]) -> tuple[Run, str | None]:
        """A run and its report. NotFound when it is not there, or not for this reader."""
        found = await self._parts.readers.read(partial(store.load_run, run=run))
        if found is None or not may_read(found[0].owner):
            raise NotFound(f"there is no run {run!r}, or it is not yours to read")
        return found

    async def run(self) -> None:
        """Write down which claims have lapsed, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for claim in lapsed(self._known.claims, self._parts.clock.mono_ns()):
                try:
                    async with self._one:
                        current = self._known.claims.of(claim.run)
                        if current is not None and self._parts.clock.mono_ns() >= current.until_ns:
                            await self._lapse(claim.run, claim.owner)
                except RetryLater as error:
                    _log.warning("a lapsed claim stays for now", run=claim.run, reason=str(error))

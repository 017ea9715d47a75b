"""The engine of one run: prepares, measures, injects, undoes, judges and cleans up.

Every run ends with a verdict.

    plan -> ledger (undo on disk) -> monitors ready -> fault -> effect -> operations -> undo -> window
         -> frozen history -> verdict -> clean-up

Whatever fails in between is a fact, never a traceback: the fault is undone first, then the history is
frozen and judged. Only a refusal (another drill runs, drills are halted) comes before there is a folder.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from homeostat.drills.actions import Phase, PowerOffFault, hold_ms
from homeostat.drills.model import Dependant, Quiesce
from homeostat.drills.planning import blast_radius, preparation
from homeostat.drills.planning.preflight import RunPlace, monitor_plans
from homeostat.drills.planning.service_client import check_certificates
from homeostat.drills.records import facts
from homeostat.drills.records.evidence import Ledger, RunRecorder, load_seen, read_evidence
from homeostat.drills.records.history import Recording
from homeostat.drills.running import injection
from homeostat.drills.running.announcement import Announcer, DrillAnnouncement, server_announcer
from homeostat.drills.running.cancellation import (
    BackgroundTasks,
    MonitorGone,
    NotBegun,
    ReactionListener,
    RunDependencies,
    RunOrder,
    Stopped,
    keep_claim,
    shielded,
    watch_collateral,
)
from homeostat.drills.running.cleanup import clean_up
from homeostat.drills.running.measurement import LOOK_S, RunMeasurement, end_monitors, monitor_commands
from homeostat.drills.running.operations import OperationRunner
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.drills.verdicts.evaluation import judge
from homeostat.drills.verdicts.judgement import judged, judgement_record
from homeostat.kernel.errors import GiveUp, HomeostatError, StoreFull
from homeostat.monitors.supervision import Monitors

_LOOK_AGAIN_S = 0.5
_FULL = (errno.ENOSPC, errno.EDQUOT)
UNDO_WITHIN_S = 15.0
"""After the keeper's own deadline, so much longer is waited for the proof."""


class DrillRun:
    """One run. `execute` once."""

    def __init__(self, parts: RunDependencies, ordered: RunOrder) -> None:
        self.id = f"r-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.folder = parts.runs / self.id
        self._parts, self._ordered, self._drill = parts, ordered, ordered.drill
        self._victim = ordered.victim or ""
        server = parts.site.server
        self.announcing = server_announcer(server.url, server.token_file) if server else Announcer()
        self._operating = OperationRunner(parts, self._drill, self._victim, self.id)
        self._breaking: injection.FaultInjection | None = None
        self._window_ended = False

    async def execute(self) -> Path:
        """The folder, frozen, judged and cleaned up. Errors only when it may not begin."""
        ordered, parts = self._ordered, self._parts
        await self.announcing.begin(self._announced())
        plans = monitor_plans(self._drill, ordered.denser)
        victims = (ordered.victim,) if ordered.victim else ()
        plan = facts.RunPlan(
            self.id,
            self._drill,
            ordered.seed,
            victims,
            plans,
            time.time_ns(),
            ordered.strict_steps,
            ordered.suite,
            (*preparation.deviations_of(parts.site, self._drill), *parts.asker.trust.deviations),
            ordered.left_out,
        )
        parts.progress.say(f"run {self.id}: {self._drill.id} on {', '.join(victims) or 'nobody'}")
        try:
            await self._written_down(plan)
        except OSError as error:
            self._not_written_down(error)
        return self.folder

    async def _written_down(self, plan: facts.RunPlan) -> None:
        """The run, with each fact on disk. OSError when the disk takes no more; it is undone all the same."""
        parts = self._parts
        with Recording.begin(self.folder, plan) as recording, Ledger(self.folder) as ledger:
            ledger.began(parts.site.site)
            book = RunRecorder(recording, parts.progress)
            await self._to_the_last_fact(book, ledger)
            recording.freeze(self._verdict())
            await self._operating.ended()
            if await clean_up(parts, self._drill, self._victim, recording, ledger):
                recording.close()

    def _not_written_down(self, error: OSError) -> NoReturn:
        """Without a history nothing is proven, and there is no verdict."""
        stands = self._breaking is not None and self._breaking.stands
        undone = "; its injected fault may still be in effect" if stands else ""
        words = f"{self.folder}: the run cannot be written down ({error.strerror or error}){undone}"
        remedy = "make room there, then `homeostat drill heal` closes it"
        raise (StoreFull if error.errno in _FULL else GiveUp)(f"{words}; {remedy}") from error

    def _announced(self) -> DrillAnnouncement:
        hosts = (self._victim,) if self._victim else ()
        resources = preparation.resources_of(self._parts.site, self._drill.fault, self._victim)
        ordered = self._ordered
        return DrillAnnouncement(
            self.id, self._drill.id, ordered.suite, self._parts.site.site, hosts, resources, ordered.seed
        )

    def _verdict(self) -> dict[str, Any]:
        try:
            return judgement_record(judge(read_evidence(self.folder)))
        except (HomeostatError, OSError) as error:
            return {**judgement_record(judged([])), "because": [f"the evidence cannot be read: {error}"]}

    async def _to_the_last_fact(self, book: RunRecorder, ledger: Ledger) -> None:
        """Everything up to the freeze; what goes wrong becomes a fact."""
        try:
            book.note(load_seen("begin"))
            await self._measured(book, ledger)
        except Stopped as stopped:
            book.note(facts.Aborted(stopped.by, stopped.why))
        except MonitorGone:
            pass  # said by name when the monitors ended
        except NotBegun as not_begun:
            if not not_begun.said:
                book.note(facts.Broke(not_begun.where, not_begun.what))
        except (HomeostatError, OSError) as error:
            book.note(facts.Broke("drill", str(error)))
        except Exception as error:
            book.note(facts.Broke("drill", f"{type(error).__name__}: {error}"))
        book.note(load_seen("end"))

    async def _measured(self, book: RunRecorder, ledger: Ledger) -> None:
        if self._ordered.unfit is not None:
            raise NotBegun("target", self._ordered.unfit)
        site, drill = self._parts.site, self._drill
        preparation.check_fit(site, drill, self._victim)
        order = preparation.injector_order(
            site, drill.fault, self._victim, self.id, site.drills.undo_deadline_s
        )
        transport = self._parts.transports[preparation.injector_host(site, drill.fault, self._victim)]
        self._breaking = breaking = injection.FaultInjection(transport, order)
        async with AsyncExitStack() as stack:
            beside = await stack.enter_async_context(BackgroundTasks())
            beside.start(self._stopped(beside), "stop")
            beside.start(keep_claim(self.announcing, self._parts.runs, beside), "claim")
            trust = self._parts.asker.trust
            await beside.watched(check_certificates(trust, site, drill, self._victim))
            await beside.watched(breaking.plan())
            await beside.watched(self._operating.before(book, ledger))
            plans = {each.id: each for each in monitor_plans(drill, self._ordered.denser)}
            places = RunPlace(site, self._victim, self.folder, trust)
            commands = await beside.watched(monitor_commands(self._parts, drill, places, plans))
            monitors = await stack.enter_async_context(Monitors(commands))
            beside.start(self._monitor_gone(monitors, beside), "monitors")
            try:
                await self._phases(monitors, beside, book, ledger)
            finally:
                await shielded(self._end(monitors, book, ledger))

    async def _stopped(self, beside: BackgroundTasks) -> None:
        beside.end(await self._parts.stop.wait())

    async def _monitor_gone(self, monitors: Monitors, beside: BackgroundTasks) -> None:
        await monitors.lost_one.wait()
        beside.end(MonitorGone())

    async def _phases(
        self, monitors: Monitors, beside: BackgroundTasks, book: RunRecorder, ledger: Ledger
    ) -> None:
        parts, drill = self._parts, self._drill
        plans = {each.id: each for each in monitor_plans(drill, self._ordered.denser)}
        measuring = RunMeasurement(drill, plans, self.folder)
        quiesce = self._ordered.quiesce
        within_s = quiesce.within_ms / 1000 if quiesce else parts.site.drills.ready_within_s
        parts.progress.say(f"{len(drill.monitors)} monitors started; waiting for a clean baseline")
        await beside.watched(measuring.ready(monitors, book, within_s, quiesce))
        await beside.watched(self._allowed(book, quiesce))
        listening = ReactionListener(self.announcing, book)
        if parts.site.server is not None:
            await beside.watched(listening.ask())
            book.note(facts.ListeningForFaults())
            beside.start(listening.listen(), "listening")
        await beside.watched(measuring.steady(book, within_s))
        watched = blast_radius.collateral(parts.site, drill, self._victim)
        beside.start(watch_collateral(parts.asker, watched, beside), "collateral")
        await beside.watched(self._broken(measuring, beside, book, ledger))
        if parts.site.server is not None:
            await beside.watched(listening.ask())

    async def _allowed(self, book: RunRecorder, quiesce: Quiesce | None) -> None:
        """Preconditions as facts; guards. NotBegun when one says no; in a suite they may take their time."""
        site, drill, looking = self._parts.site, self._drill, self._parts.looking
        end_s = time.monotonic() + (quiesce.within_ms / 1000 if quiesce else 0.0)
        while True:
            numbers = range(len(drill.preconditions))
            seen = [await looking.precondition(each, drill, self._victim) for each in numbers]
            held = all(each.held for each in seen)
            if held or time.monotonic() >= end_s:
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
        for each in seen:
            book.note(each)
        if not held:
            raise NotBegun("preconditions", "not all of them held", said=True)
        await self._whereabouts(book)
        hit = blast_radius.hit_services(site, drill, self._victim)
        serving = {name: await looking.serving(name) for name in hit}
        refusals = blast_radius.last_back_ends(site, self._victim, serving, hit)
        if refusals:
            raise NotBegun("guard", "; ".join(refusals))

    async def _whereabouts(self, book: RunRecorder) -> None:
        """Whose data lies on the disk that will be hit, and who holds an address, when the drill asks."""
        drill, breaking = self._drill, self._breaking
        assert breaking is not None
        if any(isinstance(each, Dependant) for each in drill.checks):
            about = blast_radius.verdict_services(self._parts.site, drill)
            book.note(blast_radius.dependants_in(breaking.record["plan"], about))
        await self._holders(book, "before")

    async def _holders(self, book: RunRecorder, when: Phase) -> None:
        """Ask the hosts. The one that is switched off is not waited for."""
        drill = self._drill
        off = (self._victim,) if when == "during" and isinstance(drill.fault, PowerOffFault) else ()
        looking, services = self._parts.looking, blast_radius.holders_checked(drill)
        for seen in await asyncio.gather(*(looking.holder(each, when, off) for each in services)):
            book.note(seen)

    async def _broken(
        self, measuring: RunMeasurement, beside: BackgroundTasks, book: RunRecorder, ledger: Ledger
    ) -> None:
        """From the injection to the end of the window."""
        parts, drill, breaking = self._parts, self._drill, self._breaking
        assert breaking is not None
        injected = await breaking.inject(book, ledger)
        beside.start(breaking.keep_alive(parts.site.drills.renew_s, beside), "renewal")
        beside.start(self._told(injected), "announcement")
        operating = self._operating
        canary = beside.start(operating.canary(book, ledger), "canary")
        await breaking.prove(book)
        held = beside.start(operating.while_held(book, ledger), "operations while held")
        if not hold_ms(drill.fault):
            await self._undo(book, ledger, expected=True)
        after = await self._window(measuring, injected, operating, (canary, held, beside), (book, ledger))
        self._window_ends(book, now_ns())
        await self._holders(book, "after")
        canary.cancel()
        await held
        # Never recovered: then the operations say so.
        await (after or operating.after(book, ledger))

    async def _window(
        self,
        measuring: RunMeasurement,
        injected: facts.Injected,
        operating: OperationRunner,
        tasks: tuple[asyncio.Task[None], asyncio.Task[None], BackgroundTasks],
        books: tuple[RunRecorder, Ledger],
    ) -> asyncio.Task[None] | None:
        """Until all has been well for long enough, or the longest; the operations when they were begun."""
        drill, breaking = self._drill, self._breaking
        assert breaking is not None
        (canary, held, beside), book = tasks, books[0]
        after: asyncio.Task[None] | None = None
        self._parts.progress.say("measuring until all is well again")
        # Reckoned from everything that was seen, so only when there is something new.
        until_ns, felt, seen = 0, [injection.NO_EFFECT], [injection.NO_EFFECT]
        while True:
            await asyncio.sleep(LOOK_S)
            if measuring.look():
                until_ns = measuring.known_until_ns
                felt = measuring.felt_by_users(injected)
                seen = measuring.felt(injected, until_ns, breaking.node_ns(until_ns))
            at_ns = now_ns()
            # What is done under it has its deadlines, which the drill's rules keep within the hold.
            over = held.done() and at_ns >= injection.hold_until_ns(drill, injected.after_ns)
            if breaking.undone_ns is None and over:
                if not isinstance(
                    drill.fault, PowerOffFault
                ):  # which somebody may well have switched on again
                    await breaking.prove(books[0], at_the_end=True)
                await self._holders(books[0], "during")
                await self._undo(*books, expected=True)
            if at_ns >= injection.window_limit_ns(drill, injected.after_ns):
                return after
            if after is None and injection.may_operate(
                drill, injected.after_ns, breaking.undone_ns, felt, until_ns
            ):
                canary.cancel()
                after = beside.start(operating.after(*books), "operations")
            over_ns = injection.window_end_ns(drill, injected.after_ns, breaking.undone_ns, seen)
            done = after is not None and after.done()
            if done and over_ns is not None and until_ns >= over_ns:
                # What comes later is not known to its end yet, and not measured.
                self._window_ends(book, until_ns)
                return after

    async def _told(self, injected: facts.Injected) -> None:
        """Wall moments of the fault for our own server's timeline."""
        ahead_ns = time.time_ns() - now_ns()
        try:
            await self.announcing.injected(injected.before_ns + ahead_ns, injected.after_ns + ahead_ns)
        except HomeostatError as error:
            self._parts.progress.say(f"our own server was not told of the fault: {error}")

    async def _undo(self, book: RunRecorder, ledger: Ledger, *, expected: bool) -> None:
        """To its end, whoever ends the run meanwhile."""
        assert self._breaking is not None
        drills, fault = self._parts.site.drills, self._drill.fault
        within_s = drills.undo_deadline_s + UNDO_WITHIN_S
        off = isinstance(fault, PowerOffFault)
        fenced_late = partial(self._parts.looking.fenced_late, self._victim)
        late = injection.LateFenceCheck(fenced_late) if off else None
        undoing = self._breaking.undo(book, ledger, within_s, expected=expected, late=late)
        said = await shielded(undoing)
        if off and said.proven:
            at = preparation.injector_host(self._parts.site, fault, self._victim)
            book.note(facts.BroughtBack(f"power of {self._victim}", f"the undo of this drill, at {at}"))

    def _window_ends(self, book: RunRecorder, until_ns: int) -> None:
        """Once; what is said first holds."""
        assert self._breaking is not None
        if not self._window_ended:
            self._window_ended = True
            book.note(facts.WindowEnded(until_ns, self._breaking.node_ns(until_ns)))

    async def _end(self, monitors: Monitors, book: RunRecorder, ledger: Ledger) -> None:
        """On every way out: undone, the window closed, the monitors ended."""
        breaking = self._breaking
        if breaking is not None and breaking.stands:
            await self._undo(book, ledger, expected=False)
        if breaking is not None and breaking.injected is not None:
            self._window_ends(book, now_ns())
        if any(each.kind == "cli" for each in self._drill.monitors):
            self._parts.progress.say("ending the monitors; a client's last call has its end first")
        await end_monitors(monitors, book)

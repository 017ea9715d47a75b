"""The fault path: messages from nodes in, one transaction, then acknowledgements and notices out.

One batch is in flight at a time; what arrives while it is being committed is the next batch. If a commit
fails, the world is read again from its tables, and the nodes send again what was not acknowledged.

What comes in is `hearing`, what a batch amounts to is `entry`, who is silent or dead is `watch`, what nodes
are told afterwards is `answers`. Invariant: nobody is answered or told before the commit is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ClassVar

import structlog

from homeostat.contracts.events.faults import FaultCleared
from homeostat.contracts.events.fleet import HostBack, HostDown
from homeostat.contracts.nouns import FaultKind, HostId
from homeostat.contracts.wire import Goodbye, Levels, Observations
from homeostat.faults import affected
from homeostat.faults.answers import Answers
from homeostat.faults.decision import Telling, World
from homeostat.faults.entry import Entry
from homeostat.faults.hearing import Hearing, Message
from homeostat.faults.parts import Parts
from homeostat.faults.recollection import RELOAD_PAUSE_S, recollect
from homeostat.faults.requests import Request
from homeostat.faults.watch import Watch
from homeostat.fleet.additions import Addition
from homeostat.kernel import pauses
from homeostat.kernel.errors import AlreadyDone, BadInput, RetryLater, StoreUnavailable
from homeostat.kernel.journal import Seq, Submission, grouped
from homeostat.kernel.positional_log import seconds
from homeostat.notices.enrolment import Enrolment

log = structlog.get_logger("faults")

LOOP = "faults"
COMPLAINTS_MAX = 1000
HOST_EVENTS = (HostDown, HostBack, FaultCleared)
LOOK_AFTER_S = 1.0
REST_NS = 5 * 10**8
"""So long after the last event those who had to be told of it are told, as a rule."""


class FaultPath:
    """The loop. `world` is what it last knew; others may read it and never change it.

    `host_events` is set when the commit of a death or a return is known, after its notices.
    """

    ENTRY: ClassVar[type[Entry]] = Entry
    WATCH: ClassVar[type[Watch]] = Watch

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.world = World()
        self.hearing = Hearing(parts.bus, parts.clock, parts.fleet.inbox_max)
        self.watch = self.WATCH(parts, self.hearing)
        self._answers = Answers(parts, lambda: self.knows_guests)
        self.host_events = asyncio.Event()
        self._complaints: set[str] = set()
        self.began_ns = parts.clock.wall_ns()
        self._looked_ns = 0
        self._busy_ns = 0
        self._loaded_ns = parts.clock.mono_ns()
        self._configured = frozenset(HostId(each.host) for each in parts.fleet.hosts)

    @property
    def knows_guests(self) -> bool:
        """Whether everybody who may run a guest has said so since the tables were read, or has had the time.

        Rows may be older than the world: until then nobody is told what to run or not to run.
        """
        if self._configured and not self.world.pictures.awaited(self.world.topology, self._configured):
            return True
        waited_ns = self._parts.clock.mono_ns() - max(self._loaded_ns, self.hearing.since_ns)
        return waited_ns >= self._parts.fleet.lost_after_s * 1e9

    @property
    def strangers(self) -> list[HostId]:
        """Configured hosts that no row tells of: nobody knows what runs there."""
        return sorted(self._configured - self.world.topology.nodes.keys())

    async def record(self, change: Callable[[Entry], None], *, last: bool = False) -> Seq:
        """Put a change of another loop into the next entry; the number of its last event when committed.

        RetryLater when it was not; 0 when it made no event. With `last`, it stands behind all else there.
        """
        done: asyncio.Future[Seq] = asyncio.get_running_loop().create_future()
        await self.hearing.put(Request(change, done, last))
        return await done

    async def add(self, addition: Addition) -> Seq:
        """Write something that must have its place among the faults. RetryLater when it was not."""
        return await self.record(lambda entry: entry.add(addition), last=True)

    async def enrol(self, enrolment: Enrolment) -> None:
        """Write a change of a subscription, in its place among the faults. RetryLater when it was not."""
        await self.record(lambda entry: entry.enrol(enrolment))

    async def listen(self) -> None:
        """Subscribe to everything that nodes publish."""
        await self.hearing.listen()

    async def load(self) -> None:
        """Know what the tables say, before anybody asks."""
        await self._reload("the server started")

    async def run(self) -> None:
        """Load, ask every node for what it knows, then decide batch after batch until cancelled."""
        await self._reload("the server started")
        swept_ns = 0
        while True:
            batch = await self.hearing.next_batch(self._parts.fleet.sweep_s)
            now_ns = self._parts.clock.mono_ns()
            sweep = now_ns - swept_ns >= self._parts.fleet.sweep_s * 1e9
            if sweep:
                swept_ns = now_ns
            try:
                await self._decide(batch, sweep=sweep)
            except BaseException as error:
                # This loop is started again, but nobody would answer who waits.
                for message, _ in batch:
                    if isinstance(message, Request):
                        message.refuse(error)
                raise

    async def _decide(self, batch: list[tuple[Message | Request, int]], *, sweep: bool) -> None:
        clock, faults = self._parts.clock, self._parts.faults
        entry = self.ENTRY(
            self.world, clock.wall_ns(), clock.mono_ns(), faults.clear_after_s, faults.host_clear_after_s
        )
        waiting = [each for message in batch for each in _taken(entry, *message)]
        if sweep:
            self._sweep(entry)
        entry.tick()
        last = (each for each, _ in batch if isinstance(each, Request) and each.last)
        waiting += [(each, each.change_in(entry)) for each in last]
        self._complain(entry.refused)
        if await self._commit(entry, waiting):
            if sweep and not batch and not entry.events:
                affected.prepare(self.world.topology)  # nobody waits now
                if entry.mono_ns - self._busy_ns >= REST_NS:
                    pauses.rest()
            elif batch or entry.events:
                self._busy_ns = entry.mono_ns
            return
        if len(batch) > 1:
            for each in batch:  # one that the store refuses must not take the others with it
                await self._decide([each], sweep=False)
            return
        for request, _ in waiting:
            request.refuse(StoreUnavailable("the store refused it"))

    def _sweep(self, entry: Entry) -> None:
        """Look at who spoke since, then at who did not, then at guests that nobody runs."""
        for beat in self.hearing.take_beats():
            entry.heartbeat(beat)
        self.watch.sweep(entry)
        due = entry.mono_ns - self._looked_ns >= LOOK_AFTER_S * 1e9
        if due and not self.watch.doubt and self.knows_guests:
            self._looked_ns = entry.mono_ns
            entry.look_after(self._parts.faults.start_deadline_s)
        self.watch.note_unheard(entry)

    async def _commit(self, entry: Entry, waiting: Sequence[tuple[Request, int]]) -> bool:
        """False when the store refused the entry, which no repetition cures."""
        seqs: Sequence[Seq] = ()
        herald, count = self._parts.herald, len(entry.events)
        told = herald.announce(entry.tellings, count)
        if entry.enrolments:
            told = herald.enrol(told, entry.enrolments, self.world.faults.values(), count)
        owed = herald.owed(self.world.faults.values(), entry.wall_ns, count + len(told.drafts))
        if entry.events or entry.changes or owed.drafts:
            submission = Submission(
                LOOP,
                (*entry.events, *told.drafts, *owed.drafts),
                grouped((*entry.changes, *told.changes, *owed.changes)),
            )
            try:
                receipt = await self._parts.appender.append(submission)
            except RetryLater as error:
                log.warning("entry not committed; reading the tables again", error=str(error))
                for request, _ in waiting:
                    request.refuse(error)
                await asyncio.sleep(RELOAD_PAUSE_S)
                await self._reload("an entry was not committed")
                return True
            except (AlreadyDone, BadInput) as error:
                log.error("entry refused; reading the tables again", error=str(error))
                await self._reload("an entry was refused")
                return False
            seqs = receipt.seqs
            self.world.settle(seqs)
            for addition, first in entry.additions:
                addition.adopt(seqs[first : first + len(addition.events)])
            herald.tell(told, receipt)
            herald.tell(owed, receipt)
            if any(isinstance(draft.event, HOST_EVENTS) for draft in entry.events):
                self.host_events.set()
            self._log_for_doctor(entry)
        for request, end in waiting:
            if not request.done.done():
                request.done.set_result(seqs[end - 1] if end else Seq(0))
        await self._answers.send(entry, self.world.topology)
        return True

    def _log_for_doctor(self, entry: Entry) -> None:
        """One line a fault for Doctor's scripts, with the time of its detection, whenever this is written."""
        doctor_log = self._parts.doctor_log
        if doctor_log is None:
            return
        for telling in entry.tellings:
            if telling.transition == "raised":
                doctor_log.info("doctor monitor detected at %s", seconds(detected_ns(telling)))

    async def _reload(self, reason: str) -> None:
        """The tables are the truth; nodes say again what was not committed."""
        self.world = await recollect(self._parts)
        self._loaded_ns = self._parts.clock.mono_ns()
        await self._answers.begin(self.world.topology, reason)

    def _complain(self, refused: list[str]) -> None:
        """Say each thing once: a node repeats itself every second."""
        for what in set(refused) - self._complaints:
            log.warning("observation refused", reason=what)
        self._complaints = (
            (self._complaints | set(refused)) if len(self._complaints) < COMPLAINTS_MAX else set()
        )


def detected_ns(telling: Telling) -> int:
    """When the monitor knew: of a host when its witnesses agreed, of anything else the source's own stamp."""
    return telling.at_ns if telling.fault.kind is FaultKind.HOST_DOWN else telling.fault.raised_ns


def _taken(entry: Entry, message: Message | Request, received_ns: int) -> list[tuple[Request, int]]:
    """Take a message in; who waits for it, and how many events there are then."""
    match message:
        case Observations():
            entry.observations(message, received_ns)
        case Levels():
            entry.levels(message)
        case Goodbye():
            entry.goodbye(message)
        case Request(last=False):
            return [(message, message.change_in(entry))]
        case Request():
            pass  # behind all others
    return []

"""The write path: takes a batch of node messages, commits one transaction, then sends replies and notices.

One batch is in flight at a time; what arrives while it is being committed is the next batch. Messages come
from `inbox`, a batch becomes an `entry`. Invariants: nobody is answered or notified before the commit is
known; a node gets its assignment only while nobody else can lead for long enough that the message has
arrived, and only when everybody who may run a guest was heard. A message that is lost is asked for again by
its node.

The state in memory is only a copy of its tables. It is read when a server starts, and again whenever an entry
was not committed; then the nodes send again what was not acknowledged. Reading goes on until the tables can
be read: without them nothing may be decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, assert_never

import structlog

from homeostat.contracts import wire
from homeostat.contracts.events.faults import FaultCleared
from homeostat.contracts.events.fleet import HostBack, HostDown
from homeostat.contracts.nouns import HostId
from homeostat.fleet.model import Topology
from homeostat.ingest.entry import Decide, Deciders, Entry, EntryNews, IngestDependencies, IngestState
from homeostat.ingest.inbox import EntryRequest, Inbox, LivenessSweep, Message
from homeostat.kernel.errors import CorruptState, Deposed, RetryLater, StoreFull, StoreUnavailable
from homeostat.kernel.journal import Addition, Seq, Submission, group_changes
from homeostat.kernel.loops import Backoff, collect_garbage_if_due

ASSIGNMENT_MARGIN_S = 1.0
"""The part of the term that must be left for guests to be started: a message has arrived by then."""


class Replies:
    """Who is owed an assignment, and how many were given. `knows_guests` is asked before each."""

    def __init__(self, parts: IngestDependencies, knows_guests: Callable[[], bool]) -> None:
        self._parts, self._knows_guests = parts, knows_guests
        self._owed: set[HostId] = set()
        self._given = 0

    async def send(self, entry: Entry, topology: Topology) -> None:
        """Everything that follows for the nodes from an entry that is committed."""
        epoch = self._parts.epoch
        for host, (boot, seq) in entry.acknowledge.items():
            await self._send(wire.Subjects(host).acknowledged, wire.Acknowledged(boot, seq, epoch))
        for host, (incarnation, number) in entry.facts_acknowledged.items():
            taken = wire.HostFactsAcknowledged(incarnation, number, epoch)
            await self._send(wire.Subjects(host).facts_acknowledged, taken)
        for host, reason in entry.resync.items():
            await self._send(wire.Subjects(host).resync, wire.ResyncRequested(epoch, reason))
        self._owed |= entry.assign
        if self._owed and self._parts.term_left_s() > ASSIGNMENT_MARGIN_S and self._knows_guests():
            owed, self._owed = self._owed, set()
            for host in sorted(owed & topology.nodes.keys()):
                await self._give(host, topology)

    async def begin(self, topology: Topology, reason: str) -> None:
        """The tables were read again: nothing is owed, since they ask again, and everybody is asked."""
        self._owed.clear()
        for host in topology.nodes:
            await self._send(wire.Subjects(host).resync, wire.ResyncRequested(self._parts.epoch, reason))

    async def _give(self, host: HostId, topology: Topology) -> None:
        """Tell a node which guests are its own. It asks again with its next heartbeat if this is lost."""
        self._given += 1
        incarnation, mine = topology.nodes[host].incarnation, topology.assignment(host)
        given = wire.AssignmentGiven(self._parts.epoch, self._given, incarnation, mine)
        await self._send(wire.Subjects(host).assigned, given)

    async def _send(self, subject: str, message: object) -> None:
        # What cannot be sent now is asked for again by its node.
        await self._parts.bus.publish(subject, wire.encode(message))


log = structlog.get_logger("faults")

RELOAD_PAUSE_S = 0.5
FULL_PAUSE_MAX_S = 5.0
"""Between two tries on a full disk: each one asks every node for everything that it knows."""
INSIST_S = 1.0


LOOP = "faults"
COMPLAINTS_MAX = 1000
HOST_EVENTS = (HostDown, HostBack, FaultCleared)
LOOK_AFTER_S = 1.0
REST_NS = 5 * 10**8
"""So long after the last event those who had to be told of it are told, as a rule."""


class IngestLoop:
    """The loop. `world` is what it last knew; others may read it and never change it.

    `host_events` is set when the commit of a death or a return is known, after its notices. `failed` counts
    the decisions that raised and were refused.
    """

    WATCH: ClassVar[type[LivenessSweep]] = LivenessSweep

    def __init__(self, parts: IngestDependencies) -> None:
        self._parts = parts
        self.world = IngestState()
        self.hearing = Inbox(parts.bus, parts.clock, parts.fleet.inbox_max)
        self.watch = self.WATCH(parts, self.hearing)
        self._answers = Replies(parts, lambda: self.knows_guests)
        self.host_events = asyncio.Event()
        self._complaints: set[str] = set()
        self._full = Backoff(RELOAD_PAUSE_S, FULL_PAUSE_MAX_S)
        self.failed = 0
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
        # A claim that waits is decided when the other host is found to be silent: nobody stops it before.
        waits = any(each.waits for claims in self.world.claims.values() for each in claims.values())
        return waited_ns >= self._parts.fleet.lost_after_s * (2 if waits else 1) * 1e9

    @property
    def strangers(self) -> list[HostId]:
        """Configured hosts that no row tells of: nobody knows what runs there."""
        return sorted(self._configured - self.world.topology.nodes.keys())

    async def record(self, decide: Decide) -> Seq:
        """Put a decision of another loop into the next entry; the number of its last event when committed.

        It is made from the state as it is then. RetryLater when it was not committed; 0 when it made no
        event. What the decision raises is raised here, and harms nobody else.
        """
        return await self._put(lambda entry: entry.take(decide), last=False)

    async def insist(self, decide: Decide) -> Seq:
        """The same, until it is committed: outcomes are written down however long it takes."""
        while True:
            try:
                return await self.record(decide)
            except RetryLater as error:
                log.warning("an outcome waits to be recorded", error=str(error))
                await asyncio.sleep(INSIST_S)

    async def add(self, addition: Addition) -> Seq:
        """Write something that must have its place behind all faults. RetryLater when it was not."""
        return await self._put(lambda entry: entry.add(addition), last=True)

    async def _put(self, change: Callable[[Entry], None], *, last: bool) -> Seq:
        done: asyncio.Future[Seq] = asyncio.get_running_loop().create_future()
        await self.hearing.put(EntryRequest(change, done, last))
        return await done

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
                    if isinstance(message, EntryRequest):
                        message.refuse(error)
                raise

    async def _decide(self, batch: list[tuple[Message | EntryRequest, int]], *, sweep: bool) -> None:
        clock = self._parts.clock
        entry = Entry(self.world, self._parts.deciders, clock.wall_ns(), clock.mono_ns())
        waiting = self._take(entry, batch, sweep=sweep)
        self._complain(entry.refused)
        for what, error in entry.failed:
            self._note_failure(what, error)
        if await self._commit(entry, waiting):
            if sweep and not batch and not entry.events:
                self._parts.deciders.prepare(self.world)
                if entry.mono_ns - self._busy_ns >= REST_NS:
                    collect_garbage_if_due()
            elif batch or entry.events:
                self._busy_ns = entry.mono_ns
            return
        if len(batch) > 1:
            for each in batch:  # one that the store refuses must not take the others with it
                await self._decide([each], sweep=False)
            return
        for request, _ in waiting:
            request.refuse(StoreUnavailable("the database refused the write"))

    def _take(
        self, entry: Entry, batch: list[tuple[Message | EntryRequest, int]], *, sweep: bool
    ) -> list[tuple[EntryRequest, int]]:
        """Decide about all of a batch; who waits, and how many events there are with each one's own."""
        waiting: list[tuple[EntryRequest, int]] = []
        for message, received_ns in batch:
            if not isinstance(message, EntryRequest):
                steps = _steps(self._parts.deciders, self.world, message, received_ns)
                entry.take_each(steps, f"{type(message).__name__} of {message.host}")
            elif not message.last:
                waiting += self._asked(entry, message)
        if sweep:
            self._sweep(entry)
        entry.take_each(self._parts.deciders.tick(), "a tick")
        for message, _ in batch:
            if isinstance(message, EntryRequest) and message.last:
                waiting += self._asked(entry, message)
        return waiting

    def _asked(self, entry: Entry, request: EntryRequest) -> list[tuple[EntryRequest, int]]:
        """The request with how many events there are with its own; an error goes to who asked."""
        if request.done.done() and not request.done.cancelled():
            return []  # it was refused before the batch was taken apart
        try:
            return [(request, request.change_in(entry))]
        except Exception as error:
            self._note_failure("a request", error)
            request.fail(error)
            return []

    def _sweep(self, entry: Entry) -> None:
        """Look at who spoke since, then at who did not, then at guests that nobody runs."""
        deciders = self._parts.deciders
        for beat in self.hearing.take_beats():
            entry.take_each(deciders.heartbeat(self.world, beat), f"a heartbeat of {beat.host}")
        self.watch.sweep(entry)
        due = entry.mono_ns - self._looked_ns >= LOOK_AFTER_S * 1e9
        if due and not self.watch.doubt and self.knows_guests:
            self._looked_ns = entry.mono_ns
            entry.take_each(deciders.guest_check(), "a look at the guests")
        self.watch.note_unheard(entry)

    async def _commit(self, entry: Entry, waiting: Sequence[tuple[EntryRequest, int]]) -> bool:
        """False when the store refused the entry, which no repetition cures."""
        seqs: Sequence[Seq] = ()
        notices = self._parts.herald.prepare(
            EntryNews(
                entry.tellings,
                entry.enrolments,
                self.world.faults.values(),
                entry.wall_ns,
                len(entry.events),
            )
        )
        if entry.events or entry.changes or notices.drafts:
            submission = Submission(
                LOOP, (*entry.events, *notices.drafts), group_changes((*entry.changes, *notices.changes))
            )
            try:
                receipt = await self._parts.appender.append(submission)
            except RetryLater as error:
                if not isinstance(error, StoreFull):
                    self._full.reset()
                pause_s = self._full.next_s()
                if pause_s == RELOAD_PAUSE_S:  # on a full disk once: the log may be on it, too
                    log.warning("entry not committed; reading the tables again", error=str(error))
                for request, _ in waiting:
                    request.refuse(error)
                await asyncio.sleep(pause_s)
                await self._reload("an entry was not committed")
                return True
            except (Deposed, CorruptState):
                raise
            except Exception as error:
                log.error("database refused a write; reading the tables again", error=str(error))
                await self._reload("an entry was refused")
                return False
            self._full.reset()
            seqs = receipt.seqs
            self.world.settle(seqs)
            for addition, first in entry.additions:
                addition.adopt(seqs[first : first + len(addition.events)])
            notices.committed(receipt)
            if any(isinstance(draft.event, HOST_EVENTS) for draft in entry.events):
                self.host_events.set()
            self._parts.on_committed(entry.tellings)
        for request, end in waiting:
            if not request.done.done():
                request.done.set_result(seqs[end - 1] if end else Seq(0))
        await self._answers.send(entry, self.world.topology)
        return True

    async def _reload(self, reason: str) -> None:
        """The tables are the truth; nodes say again what was not committed."""
        parts = self._parts
        while True:
            try:
                world = await parts.deciders.load(parts.readers, parts.clock)
                await parts.herald.remember(fault.id for fault in world.faults.values())
                break
            except RetryLater as error:
                log.warning("the tables cannot be read", error=str(error))
                await asyncio.sleep(RELOAD_PAUSE_S)
        world.topology.unheard = self.world.topology.unheard
        world.topology.unlooked_at = self.world.topology.unlooked_at
        world.topology.expected, world.topology.heard = (
            self.world.topology.expected,
            self.world.topology.heard,
        )
        self.world = world
        self._loaded_ns = self._parts.clock.mono_ns()
        await self._answers.begin(self.world.topology, reason)

    def _note_failure(self, what: str, error: Exception) -> None:
        """Count a decision that raised, and log each kind once: what causes it may come every second."""
        self.failed += 1
        said = f"{what}: {type(error).__name__}: {error}"
        if said not in self._complaints:
            log.error("decision could not be written, dropped", about=what, exc_info=error)
            self._complain([said])

    def _complain(self, refused: list[str]) -> None:
        """Say each thing once: a node repeats itself every second."""
        for what in set(refused) - self._complaints:
            log.warning("observation refused", reason=what)
        self._complaints = (
            (self._complaints | set(refused)) if len(self._complaints) < COMPLAINTS_MAX else set()
        )


def _steps(deciders: Deciders, state: IngestState, message: Message, received_ns: int) -> Iterable[Decide]:
    match message:
        case wire.Observations():
            return deciders.observations(state, message, received_ns)
        case wire.Snapshot():
            return deciders.snapshot(state, message)
        case wire.Goodbye():
            return deciders.goodbye(message)
        case wire.HostFactsReport():
            return deciders.facts(message)
        case _:
            assert_never(message)

"""The fault path: messages from nodes in, one transaction, then acknowledgements and notices out.

One batch is in flight at a time; what arrives while it is being committed is the next batch. If a commit
fails, the world is read again from its tables, and the nodes send again what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, TypeVar

import structlog

from homeostat.contracts.events.faults import FaultCleared
from homeostat.contracts.events.fleet import HostBack, HostDown
from homeostat.contracts.nouns import FaultKind, HostId
from homeostat.contracts.wire import (
    Acknowledged,
    AssignmentGiven,
    Goodbye,
    Heartbeat,
    Levels,
    Observations,
    ResyncRequested,
    Subjects,
    decode,
    encode,
)
from homeostat.faults import affected
from homeostat.faults.decision import Telling, World
from homeostat.faults.entry import Entry
from homeostat.faults.flapping import FlapLimits
from homeostat.faults.herald import Herald
from homeostat.faults.model import Fault
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import load_open, load_raised
from homeostat.fleet.additions import Addition
from homeostat.fleet.liveness import Link
from homeostat.fleet.model import AgentState
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.store import load_topology
from homeostat.fleet.suspicion import Evidence, Judgement, Limits, Probed, judge
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import (
    AlreadyDone,
    BadInput,
    RetryLater,
    StoreUnavailable,
)
from homeostat.kernel.journal import Seq, Submission, grouped
from homeostat.kernel.positional_log import seconds
from homeostat.notices.enrolment import Enrolment
from homeostat.notices.outcomes import Appends

log = structlog.get_logger("faults")

LOOP = "faults"
BATCH_MAX = 256
RELOAD_PAUSE_S = 0.5
COMPLAINTS_MAX = 1000
HOST_EVENTS = (HostDown, HostBack, FaultCleared)
LOOK_AFTER_S = 1.0
ASSIGNING_S = 1.0
"""What must be left of the term for guests to be started: a message that is sent has arrived by then."""


@dataclass(frozen=True, slots=True)
class Request:
    """Something that another loop wants in the journal, and who waits for it. `last`: behind all faults."""

    change: Callable[[Entry], None]
    done: asyncio.Future[Seq]
    last: bool = False


Message = Observations | Levels | Goodbye
M = TypeVar("M", bound=Heartbeat | Observations | Levels | Goodbye)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the fault path works with. `own_lag_s` is how late this process's loop has been.

    `probed` is what outside probes say now; a result older than `probe_stale_s` is none. `term_left_s` is how
    long nobody else can lead.
    """

    appender: Appends
    readers: Readers
    bus: Messages
    clock: Clock
    herald: Herald
    faults: FaultsSettings
    fleet: FleetSettings
    epoch: int
    own_lag_s: Callable[[], float]
    probed: Callable[[], Mapping[HostId, Probed]] = dict
    probe_stale_s: float = 1.0
    doctor_log: logging.Logger | None = None
    term_left_s: Callable[[], float] = lambda: math.inf


@dataclass(slots=True)
class Heard:
    """The last heartbeat of each node, and when it came in on our monotonic clock."""

    beats: dict[HostId, Heartbeat] = field(default_factory=dict)
    at_ns: dict[HostId, int] = field(default_factory=dict)


class FaultPath:
    """The loop. `world` is what it last knew; others may read it and never change it.

    `host_events` is set when the commit of a death or a return is known, after its notices.
    """

    ENTRY: ClassVar[type[Entry]] = Entry

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.world = World()
        self.doubt = "no node has been heard yet"
        self.doubts: Mapping[HostId, str] = {}
        self.suspected: Mapping[HostId, int] = {}
        self.refused = 0
        self.host_events = asyncio.Event()
        self._complaints: set[str] = set()
        self.began_ns = parts.clock.wall_ns()
        self._began_mono_ns = parts.clock.mono_ns()
        self._heard = Heard()
        self._given = 0
        self._looked_ns = 0
        self._owed: set[HostId] = set()
        self._loaded_ns = parts.clock.mono_ns()
        self._configured = frozenset(HostId(each.host) for each in parts.fleet.hosts)
        self._doubted_ns = 0
        self._doubt_began_ns: int | None = None
        self._inbox: asyncio.Queue[tuple[Message | Request, int]] = asyncio.Queue(parts.fleet.inbox_max)
        self._listening_ns = parts.clock.mono_ns()

    @property
    def hears(self) -> bool:
        """Whether anything that nodes say can reach us now."""
        return self._parts.bus.connected

    @property
    def knows_guests(self) -> bool:
        """Whether everybody who may run a guest has said so since the tables were read, or has had the time.

        Rows may be older than the world: until then nobody is told what to run or not to run.
        """
        if self._configured and not self.world.pictures.awaited(self.world.topology, self._configured):
            return True
        waited_ns = self._parts.clock.mono_ns() - max(self._loaded_ns, self._listening_ns)
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
        await self._inbox.put((Request(change, done, last), self._parts.clock.mono_ns()))
        return await done

    async def add(self, addition: Addition) -> Seq:
        """Write something that must have its place among the faults. RetryLater when it was not."""
        return await self.record(lambda entry: entry.add(addition), last=True)

    async def enrol(self, enrolment: Enrolment) -> None:
        """Write a change of a subscription, in its place among the faults. RetryLater when it was not."""
        await self.record(lambda entry: entry.enrol(enrolment))

    async def listen(self) -> None:
        """Subscribe to everything that nodes publish."""
        bus = self._parts.bus
        await bus.subscribe("node.*.heartbeat", self._on_heartbeat)
        await bus.subscribe("node.*.observations", partial(self._on_message, Observations))
        await bus.subscribe("node.*.levels", partial(self._on_message, Levels))
        await bus.subscribe("node.*.goodbye", partial(self._on_message, Goodbye))
        self._listening_ns = self._parts.clock.mono_ns()

    async def load(self) -> None:
        """Know what the tables say, before anybody asks."""
        await self._reload("the server started")

    async def run(self) -> None:
        """Load, ask every node for what it knows, then decide batch after batch until cancelled."""
        await self._reload("the server started")
        swept_ns = 0
        while True:
            batch = await self._next_batch()
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
                        _refuse_request(message, error)
                raise

    async def _next_batch(self) -> list[tuple[Message | Request, int]]:
        batch: list[tuple[Message | Request, int]] = []
        try:
            async with asyncio.timeout(self._parts.fleet.sweep_s):
                batch.append(await self._inbox.get())
        except TimeoutError:
            return batch
        while len(batch) < BATCH_MAX and not self._inbox.empty():
            batch.append(self._inbox.get_nowait())
        return batch

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
        waiting += [(each, _changed(entry, each)) for each in last]
        self._complain(entry.refused)
        if await self._commit(entry, waiting):
            if sweep and not batch and not entry.events:
                affected.prepare(self.world.topology)  # nobody waits now
            return
        if len(batch) > 1:
            for each in batch:  # one that the store refuses must not take the others with it
                await self._decide([each], sweep=False)
            return
        for request, _ in waiting:
            _refuse_request(request, StoreUnavailable("the store refused it"))

    def _sweep(self, entry: Entry) -> None:
        """Look at who spoke since, then at who did not."""
        beats, self._heard.beats = self._heard.beats, {}
        for beat in beats.values():
            entry.heartbeat(beat)
        bus, heard, fleet = self._parts.bus, self._heard.at_ns, self._parts.fleet
        if not bus.connected:
            self._listening_ns = entry.mono_ns
        probed = self._parts.probed()
        evidence = {
            node.host: Evidence(
                heard.get(node.host, 0),
                probed.get(node.host),
                agent_lost=node.agent is AgentState.LOST,
                down=node.down_ns is not None,
            )
            for node in entry.expected()
        }
        judgement = judge(
            evidence,
            Link(bus.connected, self._listening_ns, self._doubted_ns),
            entry.mono_ns,
            Limits(
                fleet.lost_after_s, fleet.host_silent_after_s, fleet.probe_failures, self._parts.probe_stale_s
            ),
            self._parts.own_lag_s(),
        )
        self._adopt(entry, judgement)
        silent_ns = entry.mono_ns - round((fleet.lost_after_s + self._parts.own_lag_s()) * 1e9)
        self.world.topology.unheard = frozenset(
            node.host
            for node in entry.expected()
            if node.down_ns is None and heard.get(node.host, self._began_mono_ns) < silent_ns
        )

    def _adopt(self, entry: Entry, judgement: Judgement) -> None:
        """Write down who is newly lost or dead, and a doubt that lasts."""
        self.doubt, self.doubts = judgement.unknown, judgement.doubts
        self.suspected = judgement.suspected
        if judgement.unknown:
            self._doubted_ns = entry.mono_ns
            began_ns = self._doubt_began_ns = self._doubt_began_ns or entry.mono_ns
            if entry.mono_ns - began_ns > self._parts.fleet.lost_after_s * 1e9:
                entry.evidence(judgement.unknown)
            return
        self._doubt_began_ns = None
        entry.evidence("")
        for host, death in judgement.dead.items():
            entry.host_down(host, death)
        for host, silent_s in judgement.silent.items():
            entry.silence(host, silent_s)
        if self.knows_guests and entry.mono_ns - self._looked_ns >= LOOK_AFTER_S * 1e9:
            self._looked_ns = entry.mono_ns
            entry.look_after(self._parts.faults.start_deadline_s)

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
                    _refuse_request(request, error)
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
        await self._answer(entry)
        return True

    def _log_for_doctor(self, entry: Entry) -> None:
        """One line a fault for Doctor's scripts, with the time of its detection, whenever this is written."""
        doctor_log = self._parts.doctor_log
        if doctor_log is None:
            return
        for telling in entry.tellings:
            if telling.transition == "raised":
                doctor_log.info("doctor monitor detected at %s", seconds(detected_ns(telling)))

    async def _answer(self, entry: Entry) -> None:
        epoch = self._parts.epoch
        for host, (boot, seq) in entry.acknowledge.items():
            await self._send(Subjects(host).acknowledged, Acknowledged(boot, seq, epoch))
        for host, reason in entry.resync.items():
            await self._send(Subjects(host).resync, ResyncRequested(epoch, reason))
        self._owed |= entry.assign
        if self._owed and self._parts.term_left_s() > ASSIGNING_S and self.knows_guests:
            owed, self._owed = self._owed, set()
            for host in sorted(owed):
                await self._give(host)

    async def _give(self, host: HostId) -> None:
        """Tell a node which guests are its own. It asks again with its next heartbeat if this is lost."""
        topology = self.world.topology
        self._given += 1
        incarnation, mine = topology.nodes[host].incarnation, topology.assignment(host)
        given = AssignmentGiven(self._parts.epoch, self._given, incarnation, mine)
        await self._send(Subjects(host).assigned, given)

    async def _send(self, subject: str, message: object) -> None:
        # What cannot be sent now is asked for again by its node.
        await self._parts.bus.publish(subject, encode(message))

    def _hold_s(self, fault: Fault) -> float:
        """How long it must stay right. A host's node must have had the time to say how its guests are."""
        settings = self._parts.faults
        if fault.kind is FaultKind.HOST_DOWN:
            return settings.host_clear_after_s
        return settings.flap_window_s if fault.flaps else settings.clear_after_s

    async def _reload(self, reason: str) -> None:
        """The tables are the truth; what is in memory is only their shadow."""
        settings, clock = self._parts.faults, self._parts.clock
        limits = FlapLimits(settings.flap_max, settings.flap_window_s)
        since_ns = clock.wall_ns() - round(limits.window_s * 1e9)
        while True:
            try:
                topology = await self._parts.readers.read(load_topology)
                faults = await self._parts.readers.read(load_open)
                raised = await self._parts.readers.read(partial(load_raised, since_ns=since_ns))
                await self._parts.herald.remember(fault.id for fault in faults)
                break
            except RetryLater as error:
                log.warning("the tables cannot be read", error=str(error))
                await asyncio.sleep(RELOAD_PAUSE_S)
        now_ns = self._loaded_ns = self._parts.clock.mono_ns()
        self._owed.clear()  # they ask again
        held = [fault.held_until(now_ns + round(self._hold_s(fault) * 1e9)) for fault in faults]
        self.world = World(topology, {fault.about: fault for fault in held}, raised, limits)
        for host in topology.nodes:
            await self._send(Subjects(host).resync, ResyncRequested(self._parts.epoch, reason))

    def _on_heartbeat(self, subject: str, body: bytes) -> None:
        try:
            beat = self._checked(Heartbeat, subject, body)
        except BadInput as error:
            self._refuse(subject, error)
            return
        self._heard.beats[beat.host] = beat
        self._heard.at_ns[beat.host] = self._parts.clock.mono_ns()

    def _on_message(self, kind: type[Message], subject: str, body: bytes) -> None:
        try:
            message = self._checked(kind, subject, body)
        except BadInput as error:
            self._refuse(subject, error)
            return
        self._heard.at_ns[message.host] = self._parts.clock.mono_ns()
        try:
            self._inbox.put_nowait((message, self._parts.clock.mono_ns()))
        except asyncio.QueueFull:
            # The node sends it again until it is acknowledged.
            log.warning("inbox full; a message waits at its node", subject=subject)

    def _checked(self, kind: type[M], subject: str, body: bytes) -> M:
        message = decode(kind, body)
        if message.host != subject.split(".")[1]:
            raise BadInput(f"{kind.__name__}.host", message.host, f"it came in on {subject}")
        return message

    def _complain(self, refused: list[str]) -> None:
        """Say each thing once: a node repeats itself every second."""
        for what in set(refused) - self._complaints:
            log.warning("observation refused", reason=what)
        self._complaints = (
            (self._complaints | set(refused)) if len(self._complaints) < COMPLAINTS_MAX else set()
        )

    def _refuse(self, subject: str, error: BadInput) -> None:
        self.refused += 1
        log.warning("message refused", subject=subject, error=str(error), refused=self.refused)


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
            return [(message, _changed(entry, message))]
        case Request():
            pass  # behind all others
    return []


def _changed(entry: Entry, request: Request) -> int:
    """How many events there are with those of the request; 0 when it has none."""
    before = len(entry.events)
    request.change(entry)
    return len(entry.events) if len(entry.events) > before else 0


def _refuse_request(request: Request, error: BaseException) -> None:
    if not request.done.done():
        request.done.set_exception(StoreUnavailable(f"not committed: {error}"))

"""The fault path: messages from nodes in, one transaction, then acknowledgements and notices out.

One batch is in flight at a time; what arrives while it is being committed is the next batch. If a commit
fails, the world is read again from its tables, and the nodes send again what was not acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, TypeVar

import structlog

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import (
    Acknowledged,
    Goodbye,
    Heartbeat,
    Levels,
    Observations,
    ResyncRequested,
    Subjects,
    decode,
    encode,
)
from homeostat.faults.decision import World
from homeostat.faults.entry import Entry
from homeostat.faults.herald import Herald
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import load_open
from homeostat.fleet.liveness import Link, assess
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.store import load_topology
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import AlreadyDone, BadInput, RetryLater
from homeostat.kernel.journal import Submission
from homeostat.notices.outcomes import Appends

log = structlog.get_logger("faults")

LOOP = "faults"
BATCH_MAX = 256
RELOAD_PAUSE_S = 0.5
COMPLAINTS_MAX = 1000

Message = Observations | Levels | Goodbye
M = TypeVar("M", bound=Heartbeat | Observations | Levels | Goodbye)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the fault path works with. `own_lag_s` is how late this process's loop has been."""

    appender: Appends
    readers: Readers
    bus: Messages
    clock: Clock
    herald: Herald
    faults: FaultsSettings
    fleet: FleetSettings
    epoch: int
    own_lag_s: Callable[[], float]


@dataclass(slots=True)
class Heard:
    """The last heartbeat of each node, and when it came in on our monotonic clock."""

    beats: dict[HostId, Heartbeat] = field(default_factory=dict)
    at_ns: dict[HostId, int] = field(default_factory=dict)


class FaultPath:
    """The loop. `world` is what it last knew; others may read it and never change it."""

    ENTRY: ClassVar[type[Entry]] = Entry

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.world = World()
        self.doubt = "no node has been heard yet"
        self.refused = 0
        self._complaints: set[str] = set()
        self._heard = Heard()
        self._inbox: asyncio.Queue[tuple[Message, int]] = asyncio.Queue(parts.fleet.inbox_max)
        self._listening_ns = parts.clock.mono_ns()

    @property
    def hears(self) -> bool:
        """Whether anything that nodes say can reach us now."""
        return self._parts.bus.connected

    async def listen(self) -> None:
        """Subscribe to everything that nodes publish."""
        bus = self._parts.bus
        await bus.subscribe("node.*.heartbeat", self._on_heartbeat)
        await bus.subscribe("node.*.observations", partial(self._on_message, Observations))
        await bus.subscribe("node.*.levels", partial(self._on_message, Levels))
        await bus.subscribe("node.*.goodbye", partial(self._on_message, Goodbye))
        self._listening_ns = self._parts.clock.mono_ns()

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
            await self._decide(batch, sweep=sweep)

    async def _next_batch(self) -> list[tuple[Message, int]]:
        batch: list[tuple[Message, int]] = []
        try:
            async with asyncio.timeout(self._parts.fleet.sweep_s):
                batch.append(await self._inbox.get())
        except TimeoutError:
            return batch
        while len(batch) < BATCH_MAX and not self._inbox.empty():
            batch.append(self._inbox.get_nowait())
        return batch

    async def _decide(self, batch: list[tuple[Message, int]], *, sweep: bool) -> None:
        clock = self._parts.clock
        entry = self.ENTRY(self.world, clock.wall_ns(), clock.mono_ns(), self._parts.faults.clear_after_s)
        for message, received_ns in batch:
            match message:
                case Observations():
                    entry.observations(message, received_ns)
                case Levels():
                    entry.levels(message)
                case Goodbye():
                    entry.goodbye(message)
        if sweep:
            self._sweep(entry)
        entry.tick()
        self._complain(entry.refused)
        if not await self._commit(entry) and len(batch) > 1:
            for each in batch:  # one that the store refuses must not take the others with it
                await self._decide([each], sweep=False)

    def _sweep(self, entry: Entry) -> None:
        """Look at who spoke since, then at who did not."""
        beats, self._heard.beats = self._heard.beats, {}
        for beat in beats.values():
            entry.heartbeat(beat)
        bus, heard = self._parts.bus, self._heard.at_ns
        if not bus.connected:
            self._listening_ns = entry.mono_ns
        assessment = assess(
            {host: heard.get(host, 0) for host in entry.expected()},
            Link(bus.connected, self._listening_ns),
            entry.mono_ns,
            lost_after_s=self._parts.fleet.lost_after_s,
            own_lag_s=self._parts.own_lag_s(),
        )
        self.doubt = assessment.doubt
        for host, silent_s in assessment.silent.items():
            entry.silence(host, silent_s)

    async def _commit(self, entry: Entry) -> bool:
        """False when the store refused the entry, which no repetition cures."""
        if entry.events or entry.changes:
            herald = self._parts.herald
            told = herald.announce(entry.tellings, len(entry.events))
            submission = Submission(LOOP, (*entry.events, *told.drafts), (*entry.changes, *told.changes))
            try:
                receipt = await self._parts.appender.append(submission)
            except RetryLater as error:
                log.warning("entry not committed; reading the tables again", error=str(error))
                await asyncio.sleep(RELOAD_PAUSE_S)
                await self._reload("an entry was not committed")
                return True
            except (AlreadyDone, BadInput) as error:
                log.error("entry refused; reading the tables again", error=str(error))
                await self._reload("an entry was refused")
                return False
            self.world.settle(receipt.seqs)
            herald.tell(told, receipt)
        await self._answer(entry)
        return True

    async def _answer(self, entry: Entry) -> None:
        epoch = self._parts.epoch
        for host, (boot, seq) in entry.acknowledge.items():
            await self._send(Subjects(host).acknowledged, Acknowledged(boot, seq, epoch))
        for host, reason in entry.resync.items():
            await self._send(Subjects(host).resync, ResyncRequested(epoch, reason))

    async def _send(self, subject: str, message: object) -> None:
        # What cannot be sent now is asked for again by its node.
        await self._parts.bus.publish(subject, encode(message))

    async def _reload(self, reason: str) -> None:
        """The tables are the truth; what is in memory is only their shadow."""
        clear_ns = round(self._parts.faults.clear_after_s * 1e9)
        while True:
            try:
                topology = await self._parts.readers.read(load_topology)
                faults = await self._parts.readers.read(load_open)
                await self._parts.herald.remember(fault.id for fault in faults)
                break
            except RetryLater as error:
                log.warning("the tables cannot be read", error=str(error))
                await asyncio.sleep(RELOAD_PAUSE_S)
        now_ns = self._parts.clock.mono_ns()
        self.world = World(topology, {fault.about: fault.held_until(now_ns + clear_ns) for fault in faults})
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

"""The node's side of the conversation with the server: heartbeats, observations until acknowledged, resync.

Nothing here may be lost by losing messages: what the server has not acknowledged is sent again, and a
resync rebuilds everything. It decides nothing about resources. Invariants: transitions are sent in the
order of their numbers; a message stays under half of what a receiver reads (one piece that is larger
travels alone); a message from a server with a lower epoch than one seen before is refused.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import structlog

from homeostat.contracts import wire
from homeostat.contracts.nouns import HostId
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.errors import BadInput, BusUnavailable, StoreFull, StoreUnavailable
from homeostat.kernel.loops import Backoff, Task
from homeostat.node.observations import ObservationStore

BATCH_BYTES_MAX = wire.MESSAGE_BYTES_MAX // 2 - 1024

P = TypeVar("P")


def batches(pieces: Iterable[P]) -> Iterator[tuple[P, ...]]:
    """Cut into messages of at most BATCH_BYTES_MAX, in order; one that is larger alone travels alone."""
    batch: list[P] = []
    used = 0
    for piece in pieces:
        size = len(wire.encode(piece)) + 1
        if batch and used + size > BATCH_BYTES_MAX:
            yield tuple(batch)
            batch, used = [], 0
        batch.append(piece)
        used += size
    if batch:
        yield tuple(batch)


RESEND_FIRST_S, RESEND_MAX_S = 0.5, 5.0
IN_FLIGHT_MAX = 2000
"""Transitions sent and not acknowledged before the link waits for the server. About 1 MB."""
ANSWER_S = 2.0
"""A server that speaks and has not said for so long how far it knows, though it is asked with every
heartbeat, will not. Larger: with one of an earlier version, reports after a kill are that late."""
HEARD_BYTES_MAX = 8 * 1024 * 1024
"""Of the server's messages, not yet acted on: more than two of the largest of each kind."""

_log = structlog.get_logger("link")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """`heartbeat_s` must be well below the server's `lost_after_s`, or a healthy node looks silent.

    `incarnation` names this life of the node process; empty: a random name. `offers` are the guests that it
    could run.
    """

    host: HostId
    heartbeat_s: float = 1.0
    incarnation: str = ""
    offers: tuple[wire.Candidate, ...] = ()


class NodeLink:
    """One node's link. Used from one event loop; the store's disk work runs in threads."""

    def __init__(
        self, settings: LinkSettings, bus: Messages, store: ObservationStore, clock: Clock | None = None
    ) -> None:
        self.incarnation = settings.incarnation or uuid.uuid4().hex[:16]
        self._settings, self._bus, self._store = settings, bus, store
        self._clock: Clock = clock or SystemClock()
        self._subjects = wire.Subjects(settings.host)
        self._heard: deque[tuple[str, bytes]] = deque()
        self._heard_bytes = 0
        self._hears = asyncio.Event()
        self._beats = asyncio.Event()
        self._sends = asyncio.Event()
        self._heeded = asyncio.Event()
        self._sent = 0
        self._levels_due = False
        self._refused_epoch: int | None = None
        self._offers = wire.candidates_digest(settings.offers)
        self._looked = True
        self._looked_ns = self._seen_ns = 0
        self._given = (0, 0)
        self._heard_first: asyncio.TimerHandle | None = None
        self._on_assigned: list[Callable[[], None]] = []
        self._on_resync: list[Callable[[], None]] = []
        bus.on_reconnect(self._on_connected)

    def tasks(self) -> tuple[Task, ...]:
        return (
            Task("link.hear", self.hear, forever=True),
            Task("link.beat", self.beat, forever=True),
            Task("link.send", self.send, forever=True),
            Task("link.tend", self.tend, forever=True),
        )

    def recorded(self, transition: wire.ResourceTransition) -> None:
        """A transition is on disk, or as safe as it can be: send it at once."""
        _log.debug("recorded", resource=transition.level.resource, seq=transition.level.seq)
        self._sends.set()

    def looked(self, at_everything: bool, seen_mono_ns: int = 0) -> None:
        """Whether the states in the store were all looked at since this node process began, and still are.

        `seen_mono_ns` as in `Looked`: the last moment at which every guest that is up there was so.
        """
        if at_everything:
            self._looked_ns, self._seen_ns = self._clock.mono_ns(), seen_mono_ns
        if at_everything != self._looked:
            self._looked = at_everything
            self._beats.set()

    def on_assigned(self, told: Callable[[], None]) -> None:
        """Call `told` whenever the store has another assignment, or one that was confirmed."""
        self._on_assigned.append(told)

    def on_resync(self, asked: Callable[[], None]) -> None:
        """Call `asked` whenever the server asks for everything."""
        self._on_resync.append(asked)

    async def listen(self) -> None:
        """Subscribe to what the server says to this node. To be called once."""
        for subject in (self._subjects.acknowledged, self._subjects.resync, self._subjects.assigned):
            try:
                await self._bus.subscribe(subject, self._on_message)
            except BusUnavailable as error:
                _log.warning(
                    "not subscribed to NATS; tried again after the next reconnect",
                    subject=subject,
                    reason=str(error),
                )

    async def beat(self) -> None:
        """Heartbeats, at once after start and reconnect, else every `heartbeat_s` from a random phase on."""
        every_s = self._settings.heartbeat_s
        wait_s = random.Random(self.incarnation).uniform(0, every_s)  # a thousand nodes must not beat in step
        while True:
            self._beats.clear()
            seen = self._store.snapshot()
            message = wire.Heartbeat(
                self._settings.host,
                seen.boot,
                self.incarnation,
                seen.seq,
                seen.digest,
                seen.first,
                self._offers,
                seen.assigned,
                seen.trouble,
                seen.asks,
                self._looked,
                self._clock.mono_ns(),
                self._looked_ns,
                self._seen_ns,
            )
            await self._bus.publish(self._subjects.heartbeat, wire.encode(message))
            if not await _set_within(self._beats, wait_s):
                wait_s = every_s

    async def tend(self) -> None:
        """Look after the store's disk as often as the heart beats, which must not wait for a disk."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            before = self._store.trouble
            try:
                await asyncio.to_thread(self._store.tend)
            except StoreUnavailable as error:
                _log.warning("the store is busy; looked at again later", reason=str(error))
            if bool(before) != bool(self._store.trouble):
                self._beats.set()

    async def send(self) -> None:
        """New transitions at once; all that are not acknowledged again after 0.5 s, later every 5 s."""
        backoff = Backoff(RESEND_FIRST_S, RESEND_MAX_S)
        loop = asyncio.get_running_loop()
        again_s: float | None = None  # when to repeat; new transitions must not put it off
        while True:
            self._sends.clear()
            if self._heeded.is_set():
                self._heeded.clear()
                backoff.reset()
                again_s = None
            if self._levels_due:
                self._levels_due = not await self._send_levels()
            await self._send_new()
            if not self._store.pending(1) and not self._levels_due:
                again_s = None
            elif again_s is None:
                again_s = loop.time() + backoff.next_s()
            if not await _set_within(self._sends, None if again_s is None else again_s - loop.time()):
                self._sent, again_s = 0, None

    async def hear(self) -> None:
        """Act on what the server said."""
        while True:
            await self._hears.wait()
            self._hears.clear()
            while self._heard:
                subject, body = self._heard.popleft()
                self._heard_bytes -= len(body)
                self._believe_soon()
                try:
                    await self._understand(subject, body)
                except (BadInput, StoreFull, StoreUnavailable) as error:
                    # A lost acknowledgement is repeated by the server when we send again.
                    _log.warning("a message of the server was dropped", subject=subject, reason=str(error))

    async def drain(self, wait_s: float) -> bool:
        """Wait until the server has everything; False when it has not within `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                while self._store.pending(1):  # noqa: ASYNC110 - once in the life of a process
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    async def goodbye(self, wait_s: float = 1.0) -> None:
        """Say that this stop was asked for, and wait until NATS has read it."""
        message = wire.Goodbye(self._settings.host, self.incarnation)
        if await self._bus.publish(self._subjects.goodbye, wire.encode(message)):
            await self._bus.flush(wait_s)

    def _on_message(self, subject: str, body: bytes) -> None:
        self._heard.append((subject, body))
        self._heard_bytes += len(body)
        while self._heard_bytes > HEARD_BYTES_MAX:
            self._heard_bytes -= len(self._heard.popleft()[1])  # the server repeats what matters
        self._hears.set()

    def _on_connected(self) -> None:
        self._sent = 0
        self._heeded.set()
        self._beats.set()
        self._sends.set()

    def _believe_soon(self) -> None:
        """The server speaks: from now on it has ANSWER_S to say how far it knows, if it is asked that."""
        if self._heard_first is None and self._store.asks:
            loop = asyncio.get_running_loop()
            self._heard_first = loop.call_later(ANSWER_S, self._believe)

    def _believe(self) -> None:
        asking = asyncio.get_running_loop().run_in_executor(None, self._store.asked_in_vain)
        asking.add_done_callback(lambda _: self._sends.set())

    async def _understand(self, subject: str, body: bytes) -> None:
        if subject == self._subjects.acknowledged:
            said = wire.decode(wire.Acknowledged, body)
            if await self.current(said.epoch) and await asyncio.to_thread(
                self._store.acknowledge, said.boot, said.seq
            ):
                self._heeded.set()
                self._sends.set()
        elif subject == self._subjects.resync:
            asked = wire.decode(wire.ResyncRequested, body)
            if await self.current(asked.epoch):
                _log.info("the server asks for everything", reason=asked.reason)
                self._sent, self._levels_due = 0, True
                self._heeded.set()
                self._sends.set()
                for each in self._on_resync:
                    each()

        elif subject == self._subjects.assigned:
            given = wire.decode(wire.AssignmentGiven, body)
            if given.incarnation == self.incarnation and await self.current(given.epoch):
                await self._assign(given)

    async def _assign(self, given: wire.AssignmentGiven) -> None:
        """Heed the newest assignment: on disk first, then to whoever runs guests."""
        if (given.epoch, given.number) <= self._given:
            return  # overtaken on the way
        before = self._store.assigned()
        told = await asyncio.to_thread(self._store.assign, given.mine)
        self._given = (given.epoch, given.number)
        if told != before:
            _log.info("these guests are to run here", guests=sorted(told.mine))
            for each in self._on_assigned:
                each()
        self._beats.set()  # the server knows at once

    async def current(self, epoch: int) -> bool:
        """Whether a server of this epoch is listened to. StoreFull, StoreUnavailable."""
        if await asyncio.to_thread(self._store.see_epoch, epoch):
            return True
        if self._refused_epoch != epoch:
            self._refused_epoch = epoch
            _log.warning("message of a server that no longer leads ignored", epoch=epoch)
        return False

    async def _send_levels(self) -> bool:
        """Everything, of one moment, in as many messages as it takes; whether all were handed over."""
        seen = self._store.snapshot()
        place = (self._settings.host, seen.boot, self.incarnation, seen.seq)
        # Offers first: who says that it has a guest must have said that it could run it.
        everything: list[wire.ResourceStatus | wire.Candidate] = [*self._settings.offers, *seen.levels]
        parts = list(batches(everything)) or [()]
        for number, part in enumerate(parts, 1):
            levels = tuple(each for each in part if isinstance(each, wire.ResourceStatus))
            offers = tuple(each for each in part if isinstance(each, wire.Candidate))
            message = wire.Snapshot(*place, levels, seen.first, offers, number, len(parts))
            if not await self._bus.publish(self._subjects.levels, wire.encode(message)):
                return False
            # More than the connection may hold must not be handed to it at once.
            if number < len(parts) and not await self._bus.flush():
                return False
        return True

    async def _send_new(self) -> None:
        """Send what has not been sent since the last repetition, as far as the window goes."""
        seen = self._store.snapshot()
        room = IN_FLIGHT_MAX - max(0, self._sent - seen.acknowledged)
        fresh = self._store.pending(max(0, room), after=self._sent)
        for batch in batches(fresh):
            message = wire.Observations(
                self._settings.host, seen.boot, self._clock.mono_ns(), seen.first, batch
            )
            if not await self._bus.publish(self._subjects.observations, wire.encode(message)):
                return
            self._sent = batch[-1].level.seq


async def _set_within(event: asyncio.Event, wait_s: float | None) -> bool:
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        return False
    return True

"""What comes in for the fault path: messages of nodes, checked, and requests of other loops, in one order.

Nothing is decided here. Invariants: a message counts only for the host on whose subject it came; the inbox
is bounded, and what does not fit is sent again by its node; a heartbeat takes no place in it, since only the
last one of each node counts. Moments are taken when a message comes in, on our monotonic clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import TypeVar

import structlog

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Goodbye, Heartbeat, Levels, Observations, decode
from homeostat.faults.requests import Request
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import BadInput

log = structlog.get_logger("faults")

BATCH_MAX = 256

Message = Observations | Levels | Goodbye
M = TypeVar("M", bound=Heartbeat | Observations | Levels | Goodbye)


class Hearing:
    """`at_ns` is when each node was last heard, `since_ns` since when everything that is said reaches us."""

    def __init__(self, bus: Messages, clock: Clock, inbox_max: int) -> None:
        self._bus, self._clock = bus, clock
        self._beats: dict[HostId, Heartbeat] = {}
        self.at_ns: dict[HostId, int] = {}
        self.inbox: asyncio.Queue[tuple[Message | Request, int]] = asyncio.Queue(inbox_max)
        self.since_ns = clock.mono_ns()
        self.refused = 0

    @property
    def connected(self) -> bool:
        """Whether anything that nodes say can reach us now."""
        return self._bus.connected

    async def listen(self) -> None:
        """Subscribe to everything that nodes publish."""
        bus = self._bus
        await bus.subscribe("node.*.heartbeat", self._on_heartbeat)
        await bus.subscribe("node.*.observations", partial(self._on_message, Observations))
        await bus.subscribe("node.*.levels", partial(self._on_message, Levels))
        await bus.subscribe("node.*.goodbye", partial(self._on_message, Goodbye))
        self.since_ns = self._clock.mono_ns()

    async def put(self, request: Request) -> None:
        """Take a request in, behind what is there already; waits while the inbox is full."""
        await self.inbox.put((request, self._clock.mono_ns()))

    async def next_batch(self, within_s: float) -> list[tuple[Message | Request, int]]:
        """What has come in, in its order, at most `BATCH_MAX`; empty when nothing did in time."""
        batch: list[tuple[Message | Request, int]] = []
        try:
            async with asyncio.timeout(within_s):
                batch.append(await self.inbox.get())
        except TimeoutError:
            return batch
        while len(batch) < BATCH_MAX and not self.inbox.empty():
            batch.append(self.inbox.get_nowait())
        return batch

    def take_beats(self) -> Collection[Heartbeat]:
        """The last heartbeat of each node that sent one since this was asked last."""
        beats, self._beats = self._beats, {}
        return beats.values()

    def _on_heartbeat(self, subject: str, body: bytes) -> None:
        try:
            beat = self._checked(Heartbeat, subject, body)
        except BadInput as error:
            self._refuse(subject, error)
            return
        self._beats[beat.host] = beat
        self.at_ns[beat.host] = self._clock.mono_ns()

    def _on_message(self, kind: type[Message], subject: str, body: bytes) -> None:
        try:
            message = self._checked(kind, subject, body)
        except BadInput as error:
            self._refuse(subject, error)
            return
        self.at_ns[message.host] = self._clock.mono_ns()
        try:
            self.inbox.put_nowait((message, self._clock.mono_ns()))
        except asyncio.QueueFull:
            # The node sends it again until it is acknowledged.
            log.warning("inbox full; a message waits at its node", subject=subject)

    def _checked(self, kind: type[M], subject: str, body: bytes) -> M:
        message = decode(kind, body)
        if message.host != subject.split(".")[1]:
            raise BadInput(f"{kind.__name__}.host", message.host, f"it came in on {subject}")
        return message

    def _refuse(self, subject: str, error: BadInput) -> None:
        self.refused += 1
        log.warning("message refused", subject=subject, error=str(error), refused=self.refused)

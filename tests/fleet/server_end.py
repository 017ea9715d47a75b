"""The server's end of the link, as small as it can be, for tests: keeps what it hears, answers when told."""

from __future__ import annotations

import asyncio

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import (
    Acknowledged,
    Goodbye,
    Heartbeat,
    Observations,
    ResourceTransition,
    ResyncRequested,
    Snapshot,
    Subjects,
    decode,
    encode,
)
from homeostat.kernel.bus import Bus


class ServerEnd:
    """Hears one node. With `answers`, acknowledges everything it hears, in order and without holes."""

    def __init__(self, bus: Bus, host: str = "n1", *, answers: bool = True) -> None:
        self.bus, self.host, self.answers = bus, host, answers
        self.subjects = Subjects(HostId(host))
        self.heartbeats: list[Heartbeat] = []
        self.messages: list[Observations] = []
        self.levels: list[Snapshot] = []
        self.goodbyes: list[Goodbye] = []
        self.epoch = 1
        self._heard = asyncio.Event()

    async def listen(self) -> None:
        await self.bus.subscribe(f"node.{self.host}.>", self._hear)

    @property
    def transitions(self) -> list[ResourceTransition]:
        """Everything heard, repetitions left out, by number."""
        heard = {each.level.seq: each for message in self.messages for each in message.transitions}
        return [heard[seq] for seq in sorted(heard)]

    @property
    def seqs(self) -> list[int]:
        return [transition.level.seq for transition in self.transitions]

    async def answer(self) -> None:
        """Acknowledge what was heard, for as long as `answers` says so; a task of the test."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            if self.answers and self.bus.connected:
                await self.acknowledge_all()

    async def acknowledge(self, boot: str, seq: int) -> None:
        assert await self.bus.publish(self.subjects.acknowledged, encode(Acknowledged(boot, seq, self.epoch)))

    async def ask(self, reason: str = "the test asks") -> None:
        assert await self.bus.publish(self.subjects.resync, encode(ResyncRequested(self.epoch, reason)))

    async def acknowledge_all(self) -> None:
        last = self.messages[-1]
        await self.acknowledge(last.boot, last.transitions[-1].level.seq)

    def _hear(self, subject: str, body: bytes) -> None:
        match subject.rpartition(".")[2]:
            case "heartbeat":
                self.heartbeats.append(beat := decode(Heartbeat, body))
                if beat.asks and self.messages:
                    self._heard.set()
            case "observations":
                self.messages.append(decode(Observations, body))
                self._heard.set()
            case "levels":
                self.levels.append(decode(Snapshot, body))
            case "goodbye":
                self.goodbyes.append(decode(Goodbye, body))

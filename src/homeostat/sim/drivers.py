"""Simulated drivers at the server's edge: webhook consumers, outside probes and power switches.

`SimTransport` carries notices to consumers that answer, refuse, are gone, or take a notice and never say so.
`SimProbe` is a `Probe` and `SimPowerSwitch` a `ports.Fence`; both keep the contracts of the real ones: a
probe ends within its wait and never raises, a fence ends within its deadline and says what it knows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from random import Random

from homeostat import ports
from homeostat.contracts.nouns import HostId
from homeostat.kernel.workers import WorkCrashed, WorkDone, Workers, WorkOutcome
from homeostat.notices.signing import KEY_HEADER
from homeostat.sim import history as story
from homeostat.sim.database import SimDatabase
from homeostat.sim.host import SimHost


class ConsumerBehaviour(Enum):
    """How a consumer behaves now."""

    FINE = "200"
    GONE = "nothing: it is not there"
    BUSY = "503"
    MUTE = "nothing, but has read it"
    CONFUSED = "404"


@dataclass(slots=True)
class SimConsumer:
    """One webhook."""

    subscription: str
    mood: ConsumerBehaviour = ConsumerBehaviour.FINE


class SimTransport:
    """Carries posts of one server process. A post that is on its way when the server dies still arrives."""

    def __init__(
        self,
        consumers: dict[str, SimConsumer],
        disk: SimDatabase,
        chance: Random,
        record: Callable[[str, story.HistoryFact], None],
    ) -> None:
        self._consumers, self._disk, self._chance, self._record = consumers, disk, chance, record
        self._dead = False

    async def post(self, request: ports.WebhookRequest) -> ports.WebhookResult:
        if self._dead:
            return ports.NoWebhookReply("the process is gone")
        consumer = self._consumers[request.url]
        await asyncio.sleep(self._chance.uniform(0.0005, 0.02))
        mood = consumer.mood
        if mood is ConsumerBehaviour.GONE:
            await asyncio.sleep(0.3)
            return ports.NoWebhookReply("connection refused")
        self._hear(consumer, request, mood)
        await asyncio.sleep(self._chance.uniform(0.0005, 0.02))
        if mood is ConsumerBehaviour.MUTE:
            return ports.NoWebhookReply("no answer in time")
        return ports.WebhookReply(int(mood.value))

    async def close(self) -> None:
        """Nothing is kept open."""

    def die(self) -> None:
        """No further post leaves this process."""
        self._dead = True

    def _hear(self, consumer: SimConsumer, request: ports.WebhookRequest, mood: ConsumerBehaviour) -> None:
        if mood not in (ConsumerBehaviour.FINE, ConsumerBehaviour.MUTE):
            return
        key = request.headers[KEY_HEADER]
        rows = self._disk.ask("SELECT fault, transition FROM outbox WHERE key = ?", key)
        fault, transition = rows[0] if rows else (key.split(":")[1], key.split(":")[2])
        body = hashlib.blake2b(request.body, digest_size=8).hexdigest()
        fact = story.NoticeReceived(
            consumer.subscription, key, str(fault), str(transition), body, bool(rows), mood.value
        )
        self._record(f"@{consumer.subscription}", fact)


class SwitchBehaviour(Enum):
    """How the power switches behave now."""

    WORKS = "works"
    FAILS = "says no"
    UNKNOWN = "does not say whether it did"
    SLOW = "does it after its deadline"


class SimProbe:
    """Asks one host from one server. It is answered when the host is on and nothing between them is cut."""

    def __init__(self, host: SimHost, chance: Random, seen: Callable[[bool], None], server: str) -> None:
        self._host, self._chance, self._seen, self._server = host, chance, seen, server

    async def __call__(self, _sequence: int, wait_s: float) -> str:
        host, network = self._host, self._host.network
        lost = self._chance.random() < network.weather.lost / 2
        if not host.answers or lost or network.is_cut(self._server):
            await asyncio.sleep(wait_s)
            self._seen(False)
            return f"{host.machine.host} does not answer within {wait_s:g} s"
        await asyncio.sleep(min(wait_s, self._chance.uniform(0.0002, 0.01)))
        self._seen(True)
        return ""


class SimPowerSwitch:
    """Switches hosts off, when it works. One for each server, on the same hosts."""

    name = "switch"

    def __init__(
        self,
        hosts: Mapping[str, SimHost],
        deadline_s: float,
        mood: Callable[[], SwitchBehaviour],
        chance: Random,
        record: Callable[[story.HistoryFact], None],
    ) -> None:
        self._hosts, self._deadline_s, self._mood = hosts, deadline_s, mood
        self._chance, self._record = chance, record
        self._kept: set[asyncio.Task[None]] = set()

    async def fence(self, host: str) -> ports.FenceResult:
        self._record(story.FenceBegan(HostId(host)))
        machine, deadline_s, chance = self._hosts[host], self._deadline_s, self._chance
        try:
            await asyncio.sleep(chance.uniform(0.05, deadline_s / 2))
        except asyncio.CancelledError:
            if chance.random() < 0.5:  # the server is gone, and the switch goes on
                self._later(machine)
            raise
        match self._mood():
            case SwitchBehaviour.WORKS:
                machine.power_off("it is fenced")
                return ports.Fenced(f"{host} is off")
            case SwitchBehaviour.FAILS:
                return ports.ActFailed("the switch says no")
            case SwitchBehaviour.UNKNOWN:
                if chance.random() < 0.5:
                    machine.power_off("it is fenced, and nobody is told")
            case SwitchBehaviour.SLOW:
                self._later(machine)
        await asyncio.sleep(deadline_s / 2)
        return ports.ActUnknown(f"the switch did not end within {deadline_s:g} s")

    def _later(self, machine: SimHost) -> None:
        """Nobody waits for it any more, and then it happens."""

        async def switch_off() -> None:
            await asyncio.sleep(self._deadline_s)
            machine.power_off("it is fenced, long after anybody waited for it")

        task = asyncio.create_task(switch_off())
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)


class InlineWorkers(Workers):
    """Does the work at once, on the event loop: virtual time does not wait for another process."""

    async def run(self, function: str, argument: object, *, deadline_s: float) -> WorkOutcome:  # noqa: ARG002
        module, _, name = function.partition(":")
        try:
            return WorkDone(getattr(import_module(module), name)(argument))
        except Exception as error:  # as a worker's would, it ends its own work only
            return WorkCrashed(f"{type(error).__name__}: {error}")

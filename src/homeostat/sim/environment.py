"""The surroundings of simulated processes: virtual time and the simulated NATS.

The event loop jumps to the next moment at which something happens. No thread and no socket: what would run
in a thread runs at once, and its answer comes after a seeded delay. The same seed gives the same run, to the
last event. Messages are lost, late, repeated and reordered, links are cut and come back. One connection
keeps the order of one subject; between subjects, and over a reconnect, nothing is promised. The network
keeps nothing, as core NATS does.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from homeostat.kernel.bus import OnMessage

T = TypeVar("T")

EPOCH_NS = 1_800_000_000_000_000_000
"""The wall clock at the beginning of every run."""
_ANSWER_MOST_S = 0.004


class Stalled(Exception):
    """Nothing will ever happen again, and somebody still waits."""


class _Jump(selectors.SelectSelector):
    """Sleeps by moving the time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing is ever ready; the time passes."""
        if timeout is None:
            raise Stalled("every task waits for something that nobody will do")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop of one run."""

    def __init__(self, chance: Random) -> None:
        self._jump = _Jump()
        self._chance = chance
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now_s

    def run_in_executor(  # type: ignore[override]
        self, _executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Do it now, let the caller know a little later."""
        answer: asyncio.Future[T] = self.create_future()
        try:
            value = func(*args)
        except Exception as error:
            failure = error
            self._later(answer, lambda: answer.set_exception(failure))
        else:
            self._later(answer, lambda: answer.set_result(value))
        return answer

    def _later(self, answer: asyncio.Future[Any], settle: Callable[[], None]) -> None:
        def arrive() -> None:
            if not answer.done():
                settle()

        self.call_later(self._chance.uniform(0, _ANSWER_MOST_S), arrive)


@dataclass(frozen=True, slots=True)
class SimClock:
    """The clocks of one machine: wall clocks disagree by `skew_ns`, monotonic ones by `booted_ns`."""

    loop: asyncio.AbstractEventLoop
    skew_ns: int = 0
    booted_ns: int = 0

    def wall_ns(self) -> int:
        return EPOCH_NS + round(self.loop.time() * 1e9) + self.skew_ns

    def mono_ns(self) -> int:
        return round(self.loop.time() * 1e9) + self.booted_ns


NOTICED_AFTER_S = 1.0
"""Until an endpoint notices that its link is cut: its unanswered pings."""


@dataclass(slots=True)
class NetworkConditions:
    """How bad the network is now: probabilities of a loss and of a repetition, and the longest delay."""

    lost: float = 0.0
    repeated: float = 0.0
    late_s: float = 0.005


class SimNetwork:
    """All links."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Random) -> None:
        self.loop, self.chance = loop, chance
        self.weather = NetworkConditions()
        self.connections = 0
        self.arrived: Counter[str] = Counter()
        self._ends: list[SimBus] = []
        self._cut: set[str] = set()
        self._hearing: dict[str, list[tuple[SimBus, OnMessage]]] = {}
        self._last_s: dict[tuple[int, int, str], float] = {}

    def attach(
        self,
        name: str,
        on_publish: Callable[[str, bytes], None] | None = None,
        on_arrival: Callable[[str], None] | None = None,
    ) -> SimBus:
        """A new connection of a process on machine `name`. Whoever watches it sees what passes."""
        bus = SimBus(name, self, on_publish)
        bus.on_arrival = on_arrival
        self._ends.append(bus)
        self.forget()
        if name not in self._cut:
            self.loop.call_later(self.chance.uniform(0.001, 0.05), bus.come_up)
        return bus

    def detach(self, bus: SimBus) -> None:
        bus.vanish()
        self._ends.remove(bus)
        self.forget()

    def forget(self) -> None:
        self._hearing.clear()

    def cut(self, name: str) -> None:
        """Nothing passes to or from this machine; it notices a little later."""
        if name in self._cut:
            return
        self._cut.add(name)
        for bus in self._ends:
            if bus.name == name:
                self.loop.call_later(NOTICED_AFTER_S, self._notice, bus)

    def mend(self, name: str) -> None:
        """The link is back; its ends connect again, whether or not they had noticed."""
        if name not in self._cut:
            return
        self._cut.discard(name)
        for bus in self._ends:
            if bus.name == name:
                bus.go_down()
                self.loop.call_later(self.chance.uniform(0.01, 0.6), bus.come_up)

    def is_cut(self, name: str) -> bool:
        return name in self._cut

    def carry(self, sender: SimBus, subject: str, body: bytes) -> None:
        """Send to everybody who listens, as well as the weather lets it."""
        if sender.name in self._cut:
            return
        hearing = self._hearing.get(subject)
        if hearing is None:
            hearing = [(bus, hear) for bus in self._ends for hear in bus.listeners(subject)]
            self._hearing[subject] = hearing
        for bus, hear in hearing:
            if self.chance.random() < self.weather.lost:
                continue
            times = 2 if self.chance.random() < self.weather.repeated else 1
            for _ in range(times):
                self._send(sender, bus, subject, (hear, body))

    def _send(self, sender: SimBus, bus: SimBus, subject: str, what: tuple[OnMessage, bytes]) -> None:
        late_s = self.chance.uniform(0.0002, self.weather.late_s)
        if self.weather.late_s > 0.01 and self.chance.random() < 0.8:
            late_s = min(late_s, 0.01)
        pipe = (sender.connection, bus.connection, subject)
        at_s = max(self._last_s.get(pipe, 0.0), self.loop.time() + late_s)
        self._last_s[pipe] = at_s
        self.loop.call_at(at_s, self._arrive, bus, subject, what)

    def _arrive(self, bus: SimBus, subject: str, what: tuple[OnMessage, bytes]) -> None:
        if bus.name not in self._cut and bus.connected:
            hear, body = what
            self.arrived[subject.rpartition(".")[2]] += 1
            if bus.on_arrival is not None:
                bus.on_arrival(subject)
            hear(subject, body)

    def _notice(self, bus: SimBus) -> None:
        if bus.name in self._cut:
            bus.go_down()


class SimBus:
    """One process's connection; what `kernel.bus.Bus` is to the rest."""

    def __init__(
        self, name: str, network: SimNetwork, on_publish: Callable[[str, bytes], None] | None
    ) -> None:
        self.name, self._network, self._on_publish = name, network, on_publish
        self.on_arrival: Callable[[str], None] | None = None
        self.connected = False
        self.connection = 0
        self._gone = False
        self._heard: list[tuple[list[str], OnMessage]] = []
        self._listeners: list[Callable[[], None]] = []

    def on_reconnect(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def subscribe(self, pattern: str, hear: OnMessage) -> None:
        self._heard.append((pattern.split("."), hear))
        self._network.forget()

    async def publish(self, subject: str, body: bytes) -> bool:
        """False when there is no connection; True promises nothing."""
        if not self.connected:
            return False
        if self._on_publish is not None:
            self._on_publish(subject, body)
        self._network.carry(self, subject, body)
        return True

    async def flush(self, timeout_s: float = 1.0) -> bool:
        await asyncio.sleep(min(timeout_s, 0.01))
        return self.connected and not self._network.is_cut(self.name)

    def listeners(self, subject: str) -> list[OnMessage]:
        parts = subject.split(".")
        return [hear for pattern, hear in self._heard if _matches(pattern, parts)]

    def come_up(self) -> None:
        if self._gone or self.connected or self._network.is_cut(self.name):
            return
        self.connected = True
        self._network.connections += 1
        self.connection = self._network.connections
        for listener in self._listeners:
            listener()

    def go_down(self) -> None:
        """The connection is lost, and everybody here knows."""
        self.connected = False

    def vanish(self) -> None:
        """The process is gone: nothing it still does reaches anybody."""
        self._gone, self.connected = True, False


def _matches(pattern: list[str], parts: list[str]) -> bool:
    return len(pattern) == len(parts) and all(a in ("*", b) for a, b in zip(pattern, parts, strict=True))

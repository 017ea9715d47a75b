"""Four nodes, their outside probes and the sweep of a server that watches them, on one set clock."""

from __future__ import annotations

from typing import Any

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Goodbye, Heartbeat, Subjects, digest, encode
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.probes import update_probed
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.suspicion import Probed
from homeostat.ingest.entry import Entry, IngestDependencies, IngestState
from homeostat.ingest.inbox import Inbox, LivenessSweep
from homeostat.kernel.bus import OnMessage
from set_clock import SetClock

HOSTS = tuple(HostId(f"n{number}") for number in range(1, 5))
LOST_AFTER_S = 3.0


class Link:
    """The server's own connection to NATS."""

    def __init__(self) -> None:
        self.connected = True
        self._heard: dict[str, OnMessage] = {}

    async def subscribe(self, pattern: str, hear: OnMessage) -> None:
        self._heard[pattern] = hear

    def beat(self, host: HostId, incarnation: str = "i1", **said: Any) -> None:
        body = encode(Heartbeat(host, "b1", incarnation, 0, digest({}), **said))
        self._heard["node.*.heartbeat"](Subjects(host).heartbeat, body)

    def goodbye(self, host: HostId, incarnation: str = "i1") -> None:
        self._heard["node.*.goodbye"](Subjects(host).goodbye, encode(Goodbye(host, incarnation)))


class Watched:
    """Four nodes, a server and its link; `own_lag_s` is how late the server is.

    `off` are hosts that do not answer outside probes; nothing is probed before `probe` is called.
    """

    def __init__(self, **fleet: Any) -> None:
        self.clock, self.link, self.world, self.own_lag_s = SetClock(), Link(), IngestState(), 0.0
        self.probed: dict[HostId, Probed] = {}
        self.off: set[HostId] = set()
        self.probing: tuple[HostId, ...] = ()
        self._deciders = FaultDeciders(FaultsSettings())
        nothing: Any = None
        parts = IngestDependencies(
            appender=nothing,
            readers=nothing,
            bus=self.link,  # type: ignore[arg-type]
            clock=self.clock,
            herald=nothing,
            deciders=self._deciders,
            fleet=FleetSettings(lost_after_s=LOST_AFTER_S, **fleet),
            epoch=1,
            own_lag_s=lambda: self.own_lag_s,
            probed=lambda: self.probed,
        )
        self.inbox = Inbox(self.link, self.clock, 100)  # type: ignore[arg-type]
        self.watch = LivenessSweep(parts, self.inbox)

    async def join(self) -> None:
        await self.inbox.listen()
        self.speak(*HOSTS)
        self.sweep()

    def speak(self, *hosts: HostId) -> None:
        for host in hosts:
            self.link.beat(host)

    def probe(self, *hosts: HostId) -> None:
        """Probe these hosts from now on."""
        self.probing = hosts

    def _probe(self) -> None:
        for host in self.probing:
            now = self.clock.wall_ns(), self.clock.mono_ns(), self.clock.mono_ns()
            said = "does not answer" if host in self.off else ""
            self.probed[host] = update_probed(self.probed.get(host), said, now)

    def sweep(self) -> Entry:
        self._probe()
        entry = Entry(self.world, self._deciders, self.clock.wall_ns(), self.clock.mono_ns())
        while not self.inbox.inbox.empty():
            message = self.inbox.inbox.get_nowait().item
            assert isinstance(message, Goodbye)
            entry.take_each(self._deciders.goodbye(message), f"a goodbye of {message.host}")
        for beat in self.inbox.take_beats():
            entry.take_each(self._deciders.heartbeat(self.world, beat), f"a heartbeat of {beat.host}")
        self.watch.sweep(entry)
        self.watch.note_unheard(entry)
        assert entry.failed == []
        return entry

    def pass_s(self, seconds: float, *speaking: HostId) -> list[str]:
        """Sweep five times a second, while these hosts speak; the events."""
        return [type(event).__name__ for event in self.events_in(seconds, *speaking)]

    def events_in(self, seconds: float, *speaking: HostId) -> list[object]:
        """The same; the events themselves."""
        events: list[object] = []
        for _ in range(round(seconds * 5)):
            self.clock.pass_s(0.2)
            self.speak(*speaking)
            events += [draft.event for draft in self.sweep().events]
        return events

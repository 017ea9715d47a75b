"""The world outside a host: its power switch, and whoever asks from outside whether it answers.

`SimProbe` is a `monitors.probes.Probe` and `PowerSwitch` a `ports.Fence`; both keep the contracts of the real
ones: a probe ends within its wait and never raises, a fence ends within its deadline and says what it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import Enum
from random import Random

from homeostat.contracts.nouns import HostId
from homeostat.ports import Fenced, FenceUnknown, Fencing, NotFenced
from homeostat.sim import story
from homeostat.sim.host import Host


class Switching(Enum):
    """How the power switches behave now."""

    WORKS = "works"
    FAILS = "says no"
    UNKNOWN = "does not say whether it did"
    SLOW = "does it after its deadline"


class SimProbe:
    """Asks one host from one server. It is answered when the host is on and nothing between them is cut."""

    def __init__(self, host: Host, chance: Random, seen: Callable[[bool], None], server: str) -> None:
        self._host, self._chance, self._seen, self._server = host, chance, seen, server

    async def __call__(self, _sequence: int, wait_s: float) -> str:
        """See `monitors.probes.Probe`."""
        host, network = self._host, self._host.network
        lost = self._chance.random() < network.weather.lost / 2
        if not host.answers or lost or network.is_cut(self._server):
            await asyncio.sleep(wait_s)
            self._seen(False)
            return f"{host.machine.host} does not answer within {wait_s:g} s"
        await asyncio.sleep(min(wait_s, self._chance.uniform(0.0002, 0.01)))
        self._seen(True)
        return ""


class PowerSwitch:
    """Switches hosts off, when it works. One for each server, on the same hosts."""

    name = "switch"

    def __init__(
        self,
        hosts: Mapping[str, Host],
        deadline_s: float,
        mood: Callable[[], Switching],
        chance: Random,
        tell: Callable[[story.Fact], None],
    ) -> None:
        self._hosts, self._deadline_s, self._mood = hosts, deadline_s, mood
        self._chance, self._tell = chance, tell
        self._kept: set[asyncio.Task[None]] = set()

    async def fence(self, host: str) -> Fencing:
        """See `ports.Fence`."""
        self._tell(story.FenceBegan(HostId(host)))
        machine, deadline_s, chance = self._hosts[host], self._deadline_s, self._chance
        try:
            await asyncio.sleep(chance.uniform(0.05, deadline_s / 2))
        except asyncio.CancelledError:
            if chance.random() < 0.5:  # the server is gone, and the switch goes on
                self._later(machine)
            raise
        match self._mood():
            case Switching.WORKS:
                machine.power_off("it is fenced")
                return Fenced(f"{host} is off")
            case Switching.FAILS:
                return NotFenced("the switch says no")
            case Switching.UNKNOWN:
                if chance.random() < 0.5:
                    machine.power_off("it is fenced, and nobody is told")
            case Switching.SLOW:
                self._later(machine)
        await asyncio.sleep(deadline_s / 2)
        return FenceUnknown(f"the switch did not end within {deadline_s:g} s")

    def _later(self, machine: Host) -> None:
        """Nobody waits for it any more, and then it happens."""

        async def switch_off() -> None:
            await asyncio.sleep(self._deadline_s)
            machine.power_off("it is fenced, long after anybody waited for it")

        task = asyncio.create_task(switch_off())
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

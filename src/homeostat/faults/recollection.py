"""The world as its tables tell it: what is in memory is only their shadow.

It is read when a server starts, and again whenever an entry was not committed. Reading goes on until the
tables can be read: without them nothing may be decided.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from homeostat.contracts.nouns import FaultKind
from homeostat.faults.decision import World
from homeostat.faults.flapping import FlapLimits
from homeostat.faults.model import Fault
from homeostat.faults.parts import Parts
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import load_open, load_raised
from homeostat.fleet.store import load_topology
from homeostat.kernel.errors import RetryLater

log = structlog.get_logger("faults")

RELOAD_PAUSE_S = 0.5


async def recollect(parts: Parts) -> World:
    """Everything that is open, held from now on for as long as if it had just come right."""
    settings, clock = parts.faults, parts.clock
    limits = FlapLimits(settings.flap_max, settings.flap_window_s)
    since_ns = clock.wall_ns() - round(limits.window_s * 1e9)
    while True:
        try:
            topology = await parts.readers.read(load_topology)
            faults = await parts.readers.read(load_open)
            raised = await parts.readers.read(partial(load_raised, since_ns=since_ns))
            await parts.herald.remember(fault.id for fault in faults)
            break
        except RetryLater as error:
            log.warning("the tables cannot be read", error=str(error))
            await asyncio.sleep(RELOAD_PAUSE_S)
    now_ns = clock.mono_ns()
    held = [fault.held_until(now_ns + round(_hold_s(fault, settings) * 1e9)) for fault in faults]
    return World(topology, {fault.about: fault for fault in held}, raised, limits)


def _hold_s(fault: Fault, settings: FaultsSettings) -> float:
    """How long it must stay right. A host's node must have had the time to say how its guests are."""
    if fault.kind is FaultKind.HOST_DOWN:
        return settings.host_clear_after_s
    return settings.flap_window_s if fault.flaps else settings.clear_after_s

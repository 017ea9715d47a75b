"""Failures of whole hosts that begin with a word of their node process: an orderly shutdown, a forged claim.

Drawn beside the schedule of a seed, with a chance of their own, so that they change nothing else in it.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from homeostat.contracts.nouns import Owner, ResourceId
from homeostat.sim import history as facts

if TYPE_CHECKING:
    from homeostat.sim.cluster import SimCluster
    from homeostat.sim.host import SimHost

Steps = tuple[tuple[float, str, int], ...]
"""(seconds, what, whom), as in a schedule."""


def draw_shutdowns(chance: Random, duration_s: float, hosts: int) -> Steps:
    """Hosts that are shut down in order."""
    return tuple(
        (chance.uniform(2.0, duration_s), "shut down host", chance.randrange(hosts))
        for _ in range(chance.randint(0, 2))
    )


def draw_hostile_claims(chance: Random, duration_s: float, hosts: int, guests: int) -> Steps:
    """In every second run, claims of guests that only the server could make true."""
    if chance.random() < 0.5:
        return ()
    return tuple(
        (chance.uniform(4.0, duration_s), "hostile claim", chance.randrange(hosts * guests))
        for _ in range(chance.randint(1, 4))
    )


async def carry_out(world: SimCluster, what: str, whom: int) -> None:
    """Do what was drawn. `whom` counts hosts, and guests beyond them."""
    host = world.hosts[whom % len(world.hosts)]
    if what == "shut down host":
        await host.shut_down()
    else:
        guests = list(world.scale.guests)
        await _claim(world, host, guests[whom // len(world.hosts) % len(guests)])


async def _claim(world: SimCluster, host: SimHost, guest: ResourceId) -> None:
    """Somebody says as this node that it has a guest, under the generation after the present one."""
    rows = world.disk.ask("SELECT generation, owner, host FROM resource WHERE id = ?", guest)
    process = host.process
    if process is None or not rows or rows[0][2] == host.machine.host:
        return
    world.record(host.machine.host, facts.Remark(f"somebody claims {guest} as this node"))
    await process.forge(guest, int(str(rows[0][0])) + 1, Owner(str(rows[0][1])))

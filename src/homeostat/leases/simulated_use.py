"""People who use leases, in the simulator: they reserve hosts, change their minds, and leave nothing behind.

Each life of a server has them for a while. What is refused, or cannot be written now, is part of their day.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

from homeostat.contracts.component import ServerParts
from homeostat.contracts.nouns import Owner
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import GiveUp, RetryLater
from homeostat.leases.booking import LeaseRequest, ReservationRequest
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.lease_update import LeaseUpdate
from homeostat.leases.model import ResourceType

REQUESTS = 25
PROJECTS = (Owner("shop"), Owner("bank"))
BY = "people"
_S = 1_000_000_000


async def use_leases(parts: ServerParts, chance: Random) -> None:
    """A number of requests, then everything is deleted; ends by itself."""
    keeper, path = parts.find(LeaseKeeper), parts.find(IngestLoop)
    clock = parts.find(Clock)
    for number in range(REQUESTS):
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        with suppress(RetryLater, GiveUp):
            for host in sorted(path.world.topology.nodes.keys() - keeper.book.hosts.keys()):
                await keeper.add_host(host, BY)
            await _ask(keeper, chance, clock.wall_ns(), number)
    await _leave(keeper)


async def _ask(keeper: LeaseKeeper, chance: Random, now_ns: int, number: int) -> None:
    leases = sorted(keeper.book.leases)
    what = chance.choice(("create", "create", "create", "extend", "delete", "acknowledge"))
    if what == "create" or not leases:
        start_ns = now_ns + round(chance.uniform(0, 4) * _S)
        end_ns = start_ns + round(chance.uniform(0.5, 8) * _S)
        wanted = tuple(_reservation(chance) for _ in range(chance.randint(1, 2)))
        project = chance.choice(PROJECTS)
        await keeper.create(LeaseRequest(f"l{number}", project, BY, start_ns, end_ns, None, wanted))
        return
    lease = chance.choice(leases)
    match what:
        case "extend":
            end_ns = keeper.book.leases[lease].end_ns + round(chance.uniform(0.1, 3) * _S)
            await keeper.update(lease, LeaseUpdate(end_ns=end_ns), BY)
        case "delete":
            await keeper.delete(lease, BY)
        case _:
            await keeper.acknowledge(lease, BY)


def _reservation(chance: Random) -> ReservationRequest:
    if chance.random() < 0.6:
        return ReservationRequest(ResourceType.HOST, 1, chance.randint(1, 2))
    return ReservationRequest(
        ResourceType.INSTANCE,
        amount=chance.randint(1, 3),
        vcpus=1,
        memory_mb=256,
        disk_gb=1,
        affinity=chance.choice((None, True, False)),
    )


async def _leave(keeper: LeaseKeeper) -> None:
    while keeper.book.leases:
        for lease in sorted(keeper.book.leases):
            with suppress(RetryLater, GiveUp):
                await keeper.delete(lease, BY)
        await asyncio.sleep(0.5)

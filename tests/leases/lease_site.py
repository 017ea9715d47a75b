"""A server of leases alone, on a port: the real pages and API over a service whose clock stands still.

It runs in a thread of its own, so that a browser or a command line can ask it from the test's thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from lease_parts import (
    HOUR_NS,
    NOON_NS,
    LeaseService,
    hosts_wanted,
    lease_from,
    reported,
    serving,
    slots_wanted,
)

from homeostat.components import catalogue, journal_view, navigation
from homeostat.contracts.events import leases as events
from homeostat.contracts.health import ServerHealth
from homeostat.contracts.nouns import HostId, Owner
from homeostat.kernel.access import Role, Token, hash_token, insert_token
from homeostat.kernel.client import Client
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.http import Callers
from homeostat.kernel.journal import Journal, Submission
from homeostat.kernel.workers import WorkDone, WorkOutcome
from homeostat.leases.api import LeasesApi
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext, lease_event
from homeostat.leases.component import COMPONENT
from homeostat.leases.model import Lease, LeaseStatus, ReservationStatus
from homeostat.leases.monitoring import HostOutcome
from homeostat.leases.outlook import LeaseOutlook, OutlookDependencies
from homeostat.leases.settings import LeasesSettings
from homeostat.server.http_api import ApiParts, assemble
from homeostat.server.status import StatusSources
from homeostat.web.page_route import Console
from homeostat.web.sessions import Links, Sessions
from homeostat.web.stream import JournalTail, StreamCount
from real_parts import free_port
from store_parts import Store

T = TypeVar("T")
TOKENS = {
    "admin": (Role.ADMIN, "infrastructure"),
    "blue": (Role.OPERATOR, "blue"),
    "green": (Role.OPERATOR, "green"),
    "watch": (Role.VIEWER, "blue"),
}
BLUE, GREEN = Owner("blue"), Owner("green")


class InlinePool:
    """Workers that work at once, in this process."""

    async def run(self, function: str, argument: object, *, deadline_s: float) -> WorkOutcome:
        module, _, name = function.partition(":")
        return WorkDone(getattr(import_module(module), name)(argument))


def outlook_of(service: LeaseService) -> LeaseOutlook:
    """The real one; it surveys when it is told to look."""
    parts = OutlookDependencies(service.keeper, InlinePool(), service.clock, LeasesSettings())
    return LeaseOutlook(parts)


@dataclass
class LeaseSite:
    """Calls of the service and of the outlook go through `do`."""

    port: int
    loop: asyncio.AbstractEventLoop
    service: LeaseService
    outlook: LeaseOutlook

    @property
    def client(self) -> Client:
        return self.client_of("admin")

    def client_of(self, who: str) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", who)

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(30)


@contextmanager
def lease_site(file: Path, hosts: int) -> Iterator[LeaseSite]:
    """A site with hosts h1, h2 and so on that may be reserved, on a database with our schema."""
    ready: list[LeaseSite] = []
    started, ending = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=asyncio.run, args=(_serve(file, hosts, ready, started, ending),))
    thread.start()
    try:
        assert started.wait(60) and ready, "the site did not start"
        yield ready[0]
    finally:
        if ready:
            ready[0].loop.call_soon_threadsafe(ending.set)
        thread.join(30)


async def _serve(
    file: Path, hosts: int, ready: list[LeaseSite], started: threading.Event, ending: asyncio.Event
) -> None:
    store = Store(f"sqlite:///{file}")
    try:
        async with serving(store, range(1, hosts + 1)) as service:
            rows = TOKENS.items()
            tokens = tuple(insert_token(Token(n, hash_token(n), role, owner, 1)) for n, (role, owner) in rows)
            await service.appender.append(Submission("test", changes=tokens))
            site = LeaseSite(free_port(), asyncio.get_running_loop(), service, outlook_of(service))
            tail = JournalTail(Journal(store.readers, catalogue()), StreamCount())
            app = _app(store, site, tail)
            config = uvicorn.Config(app, port=site.port, log_level="warning", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(tail.run())
                serving_it = group.create_task(server.serve())
                while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0.01)
                ready.append(site)
                started.set()
                await ending.wait()
                server.should_exit = True
                await serving_it
                watching.cancel()
    finally:
        started.set()
        store.close()


def _app(store: Store, site: LeaseSite, tail: JournalTail) -> Any:
    service, clock = site.service, site.service.clock

    async def no_set_points(_caller: object) -> tuple[()]:
        return ()

    console = Console(
        Links(clock),
        Sessions(service.appender, store.readers, clock),
        no_set_points,
        ServerHealth,
        store.readers,
        tail,
        clock,
        journal_view((COMPONENT,)),
        navigation((COMPONENT,)),
    )
    leases = LeasesApi(service.keeper, clock, tail.journal, site.outlook)
    parts = ApiParts(
        StatusSources((), ServerHealth),
        Callers(store.readers, SystemClock()),
        1 << 20,
        {"console": console, "leases": leases},
        (COMPONENT,),
    )
    return assemble(parts)


async def _book(service: LeaseService, name: str, hours: tuple[float, float], **how: Any) -> Lease:
    wanted = how.get("wanted", hosts_wanted())
    project = how.get("project", BLUE)
    made = await service.keeper.create(lease_from(*hours, wanted, name=name, project=project))
    assert isinstance(made, Lease), made
    return made


def _started(lease: Lease, book: LeaseBook, context: LeaseContext) -> LeaseChange:
    """What becomes of a lease when its time has come."""
    event = events.LeaseStatusChanged(lease.id, lease.project, "ACTIVE", "active", "")
    return LeaseChange(
        events=(lease_event(lease.id, event, context),),
        leases=(replace(book.leases[lease.id], status=LeaseStatus.ACTIVE),),
        reservations=tuple(
            replace(each, status=ReservationStatus.ACTIVE) for each in book.reservations_of(lease.id)
        ),
    )


def move(book: LeaseBook, lease: Lease, old: str, new: str | None, context: LeaseContext) -> LeaseChange:
    """What healing does to the allocation of a lease on a host that failed; None: no other host is free."""
    (reservation,) = book.reservations_of(lease.id)
    place = next(each for each in book.allocations_of(reservation.id) if each.host == old)
    reason = f"host {old} failed (host_down)" + ("" if new else "; no other host is free")
    names = (reservation.id, lease.id, lease.project)
    is_active = reservation.status is ReservationStatus.ACTIVE
    event: object = events.ReservationMissing(*names, 1, reason)
    noted = reservation
    if new is not None:
        event = events.ReservationMoved(*names, ((old, new),), is_active, reason)
        noted = replace(
            reservation, moved_ns=context.now_ns, changed_ns=context.now_ns if is_active else None
        )
    target = None if new is None else HostId(new)
    return LeaseChange(
        events=(lease_event(lease.id, event, context),),
        reservations=(noted,),
        allocations=(replace(place, host=target, since_ns=context.now_ns, reason=reason),),
    )


async def _mark_failed(site: LeaseSite, host: str, at_ns: int) -> None:
    site.service.clock.now_ns = at_ns
    await site.service.keeper.decide(
        lambda book, context: reported(book, host, HostOutcome.FAILED, context, at_ns)
    )


async def fill(site: LeaseSite) -> None:
    """A day at a site of ten hosts: leases that run and will, failures, a move, a held host, one missing."""
    service = site.service
    keeper, clock = service.keeper, service.clock
    clock.now_ns = NOON_NS - 4 * HOUR_NS
    farm = await _book(service, "build-farm", (-3, 6), wanted=hosts_wanted(2))  # h1 h2
    night = await _book(service, "nightly-tests", (-2, 3), project=GREEN)  # h3
    slots = await _book(service, "web-preview", (-3, 12), wanted=slots_wanted(3, 1))  # h4
    for name, hours, project in (
        ("training", (8, 20), GREEN),
        ("release", (14, 30), BLUE),
        ("benchmark", (4, 9), GREEN),
    ):
        await _book(service, name, hours, wanted=hosts_wanted(2), project=project)
    await _book(service, "upgrade-rehearsal", (22, 36), wanted=hosts_wanted(3))
    for lease in (farm, night, slots):
        clock.now_ns = lease.start_ns
        await keeper.decide(partial(_started, lease))
    await _mark_failed(site, "h6", NOON_NS - 2 * HOUR_NS)
    clock.now_ns = NOON_NS - round(1.2 * HOUR_NS)
    recovered = HostId("h6")
    await keeper.decide(lambda book, context: reported(book, recovered, HostOutcome.RECOVERED, context))
    await _mark_failed(site, "h3", NOON_NS - HOUR_NS)
    await keeper.decide(lambda book, context: move(book, night, "h3", None, context))
    await _mark_failed(site, "h2", NOON_NS - HOUR_NS // 2)
    await keeper.decide(lambda book, context: move(book, farm, "h2", "h8", context))
    await keeper.hold_host(HostId("h5"), "new memory", NOON_NS + 5 * HOUR_NS, "admin")
    clock.now_ns = NOON_NS
    assert await site.outlook.look()

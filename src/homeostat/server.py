"""The control plane's composition root: every part, in the order in which it is made. No decisions here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import uvloop
from fastapi import FastAPI

from homeostat.contracts.events import CATALOGUE
from homeostat.contracts.events.fleet import LoopCrashed
from homeostat.contracts.nouns import INFRASTRUCTURE, SetPoint
from homeostat.faults.api import FaultsApi
from homeostat.faults.herald import Herald, recall
from homeostat.faults.loop import FaultPath, Parts
from homeostat.faults.promises import FaultPromises
from homeostat.fleet.promises import promises as fleet_promises
from homeostat.http_api import Overview, assemble, bind, listen
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.appender import Appender, Mode
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.config import load
from homeostat.kernel.database import Readers, open_engine, upgrade
from homeostat.kernel.http import Callers
from homeostat.kernel.journal import Draft, Submission
from homeostat.kernel.logs import configure
from homeostat.kernel.loops import LoopLag, Task, run_tasks
from homeostat.kernel.reader import Journal
from homeostat.kernel.terminal import errors_in_one_line
from homeostat.leadership import Leadership
from homeostat.nats_settings import secret_in
from homeostat.notices.api import NoticesApi
from homeostat.notices.delivery import Delivery, DeliveryParts
from homeostat.notices.promises import NoticePromises
from homeostat.notices.subscriptions import Subscriptions
from homeostat.notices.targets import guard
from homeostat.notices.webhook import SystemLookup, TargetCheck, WebhookTransport
from homeostat.settings import ServerSettings
from homeostat.tokens_api import Registry

log = structlog.get_logger("server")

ADMIN_TOKEN = "admin"


@dataclass(frozen=True, slots=True)
class Store:
    """The database, as this leader has it."""

    leader: Leadership
    appender: Appender
    readers: Readers
    journal: Journal


@dataclass(frozen=True, slots=True)
class Telling:
    """Everything that tells people."""

    subscriptions: Subscriptions
    check: TargetCheck
    delivery: Delivery
    herald: Herald


def main(settings: ServerSettings) -> None:
    """Run the server until SIGTERM or SIGINT."""
    configure(settings.log_level)
    uvloop.run(serve(settings))


async def serve(settings: ServerSettings) -> None:
    """Make the parts, run the loops, take everything down again."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    clock, lag = SystemClock(), LoopLag()
    listener = bind(settings.api.host, settings.api.port)
    nats = settings.nats
    bus = Bus(BusSettings(nats.url, nats.user, nats.password(), "homeostat server", nats.ping_interval_s))
    async with _open_store(settings, clock) as store, _open_telling(settings, store, clock) as telling:
        log.info("leading", epoch=store.leader.epoch, database=store.leader.engine.dialect.name)
        registry = Registry(store.appender, store.readers, Callers(store.readers, clock), clock)
        await _let_administrator_in(settings, registry)
        path = FaultPath(
            Parts(
                appender=store.appender,
                readers=store.readers,
                bus=bus,
                clock=clock,
                herald=telling.herald,
                faults=settings.faults,
                fleet=settings.fleet,
                epoch=store.leader.epoch,
                own_lag_s=lambda: lag.worst_s,
            )
        )
        await path.listen()
        app = _api(settings, store, telling, path, registry)
        await run_tasks(
            [
                Task("loop lag", lag.run, forever=True),
                Task("term", store.leader.keep, forever=True),
                Task("bus", bus.run, forever=True),
                Task("fault path", path.run, forever=True),
                Task("delivery", telling.delivery.run, forever=True),
                Task("api", lambda: listen(app, listener), forever=True),
            ],
            stopping=stopping,
            on_crash=partial(_record_crash, store.appender, clock),
        )


async def _record_crash(appender: Appender, clock: Clock, name: str, error: BaseException) -> None:
    at_ns = clock.wall_ns()
    event = LoopCrashed(name, f"{type(error).__name__}: {error}"[:500])
    draft = Draft(event, f"loop/{name}", at_ns, "server", f"loop/{name}/{at_ns}")
    await appender.append(Submission("server", (draft,)))


@asynccontextmanager
async def _open_store(settings: ServerSettings, clock: Clock) -> AsyncIterator[Store]:
    """The schema at this version, the term, the one writer, and readers."""
    upgrade(settings.database_url)
    engine, reading = open_engine(settings.database_url), open_engine(settings.database_url, read_only=True)
    holder = f"{socket.gethostname()}/{os.getpid()}"
    try:
        async with Leadership.of(engine, holder, settings.term.ttl_s, clock) as leader:
            appender = Appender(
                engine, CATALOGUE, epoch=leader.epoch, settings=settings.appender_settings(), clock=clock
            )
            appender.start()
            readers = Readers(reading)
            try:
                await leader.announce(appender)
                yield Store(leader, appender, readers, Journal(readers, CATALOGUE))
            finally:
                await appender.close()
                readers.close()
    finally:
        engine.dispose()
        reading.dispose()


@asynccontextmanager
async def _open_telling(settings: ServerSettings, store: Store, clock: Clock) -> AsyncIterator[Telling]:
    """Subscriptions in memory, the way out, and the herald between them and the fault path."""
    subscriptions = Subscriptions(store.readers)
    await subscriptions.reload()
    own_guard = guard(settings.notices.allowed_networks, settings.listeners())
    lookup = SystemLookup()
    transport = WebhookTransport(own_guard, lookup, settings.notices)
    recalled = partial(recall, store.readers)
    delivery = Delivery(
        DeliveryParts(store.appender, store.readers, subscriptions, transport, recalled, clock),
        settings.notices,
    )
    try:
        yield Telling(
            subscriptions,
            TargetCheck(own_guard, lookup, settings.notices.connect_timeout_s),
            delivery,
            Herald(subscriptions, delivery, store.readers),
        )
    finally:
        await transport.close()
        lookup.close()


def _api(
    settings: ServerSettings, store: Store, telling: Telling, path: FaultPath, registry: Registry
) -> FastAPI:
    async def of_fleet(caller: Caller) -> tuple[SetPoint, ...]:
        mine = caller.may_read(INFRASTRUCTURE)
        return fleet_promises(path.world.topology, path.doubt) if mine else ()

    def health() -> str:
        if store.appender.mode is not Mode.WRITABLE:
            return store.appender.why
        return "" if path.hears else "NATS is not connected: nothing is heard from the nodes"

    faults = FaultPromises(store.readers, registry.clock, settings.faults)
    telling_promises = NoticePromises(telling.delivery, settings.faults.told_within_s)
    return assemble(
        Overview((of_fleet, faults, telling_promises), health),
        registry.callers,
        settings.api.body_max_bytes,
        {
            "topology": lambda: path.world.topology,
            "faults": FaultsApi(store.readers, store.journal, telling.subscriptions),
            "notices": NoticesApi(
                store.appender,
                store.readers,
                telling.subscriptions,
                telling.check,
                telling.delivery.release,
                registry.clock,
                settings.notices,
            ),
            "tokens": registry,
        },
    )


async def _let_administrator_in(settings: ServerSettings, registry: Registry) -> None:
    file = settings.api.admin_token_file
    if file is not None:
        token = secret_in(file, "api.admin_token_file")
        await registry.issue(ADMIN_TOKEN, Role.ADMIN, INFRASTRUCTURE, token)


if __name__ == "__main__":
    with errors_in_one_line():
        main(load(ServerSettings, Path(sys.argv[1])))

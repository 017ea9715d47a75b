"""The control plane's composition root: every part, in the order in which it is made. No decisions here."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
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
from homeostat.kernel.errors import BadInput
from homeostat.kernel.http import Callers
from homeostat.kernel.journal import Draft, Submission
from homeostat.kernel.logs import configure
from homeostat.kernel.loops import LoopLag, Task, run_tasks
from homeostat.kernel.positional_log import open_log
from homeostat.kernel.reader import Journal
from homeostat.kernel.terminal import errors_in_one_line
from homeostat.leadership import Leadership
from homeostat.metrics import Metrics, SetPoints, Sources
from homeostat.nats_settings import secret_in
from homeostat.notices.api import NoticesApi
from homeostat.notices.dead_man import DeadMan, DeadManParts, anywhere
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
                doctor_log=_doctor_log(settings.faults.doctor_log_file),
            )
        )
        await path.listen()
        health = partial(_health, store, path)
        dead_man = _dead_man(settings, store.leader.epoch, clock, health)
        promises = _promises(settings, store, telling, path, dead_man)
        metrics = Metrics(
            Sources(
                promises=promises,
                health=health,
                appender=store.appender,
                readers=store.readers,
                delivery=telling.delivery,
                path=path,
                lag=lag,
                epoch=store.leader.epoch,
            ),
            is_open=settings.api.metrics_open,
        )
        app = _api(settings, store, telling, Overview(promises, health), registry)
        app.state.topology = lambda: path.world.topology
        app.state.metrics = metrics
        await run_tasks(
            [
                *([] if dead_man is None else [Task("dead man", dead_man.run, forever=True)]),
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


def _doctor_log(file: Path | None) -> logging.Logger | None:
    if file is None:
        return None
    try:
        return open_log(file)
    except OSError as error:
        raise BadInput(
            "faults.doctor_log_file", str(file), f"a file that can be written ({error})"
        ) from error


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


def _health(store: Store, path: FaultPath) -> str:
    """Empty while this server can write and hear, else what is wrong."""
    if store.appender.mode is not Mode.WRITABLE:
        return store.appender.why
    return "" if path.hears else "NATS is not connected: nothing is heard from the nodes"


def _dead_man(
    settings: ServerSettings, epoch: int, clock: Clock, health: Callable[[], str]
) -> DeadMan | None:
    wanted = settings.notices.dead_man
    if wanted is None:
        return None
    secret = secret_in(wanted.secret_file, "notices.dead_man.secret_file")
    guard = anywhere(settings.listeners())
    return DeadMan(DeadManParts(guard, clock, health, epoch, secret), wanted, settings.notices)


def _promises(
    settings: ServerSettings, store: Store, telling: Telling, path: FaultPath, dead_man: DeadMan | None
) -> tuple[SetPoints, ...]:
    """Every room's set points, in the order of `homeostat status`."""

    async def of_fleet(caller: Caller) -> tuple[SetPoint, ...]:
        mine = caller.may_read(INFRASTRUCTURE)
        return fleet_promises(path.world.topology, path.doubt) if mine else ()

    faults = FaultPromises(store.readers, store.leader.clock, settings.faults)
    notices = NoticePromises(telling.delivery, settings.faults.told_within_s)
    return (of_fleet, faults, notices, *(() if dead_man is None else (dead_man,)))


def _api(
    settings: ServerSettings, store: Store, telling: Telling, overview: Overview, registry: Registry
) -> FastAPI:
    return assemble(
        overview,
        registry.callers,
        settings.api.body_max_bytes,
        {
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

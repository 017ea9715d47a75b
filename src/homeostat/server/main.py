"""The control plane's composition root: every part of a server, in order of making. No decisions."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import structlog
import uvloop

from homeostat.components import (
    COMPONENTS,
    armable_names,
    exposure_rows,
    journal_view,
    lay_foundations,
    retention_rules,
    serve_components,
    write_path,
)
from homeostat.contracts.component import Component, ExposureSource
from homeostat.contracts.events.fleet import LoopCrashed
from homeostat.contracts.journal_view import JournalView
from homeostat.contracts.nouns import INFRASTRUCTURE
from homeostat.fleet.gate import Arming
from homeostat.fleet.probes import OutsideProbes, host_probes
from homeostat.fleet.settings import FleetSettings, owners_warning
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.access import Role
from homeostat.kernel.appender import Appender, Mode
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.config import find_warnings, load, read_secret
from homeostat.kernel.connections import ConnectionLimits, StreamCount
from homeostat.kernel.errors import StoreFull
from homeostat.kernel.http import Callers
from homeostat.kernel.journal import NewEvent, Submission
from homeostat.kernel.listeners import HttpListener, open_listeners
from homeostat.kernel.loops import LoopLag, Task, run_tasks, tune_garbage_collector
from homeostat.kernel.terminal import configure_logging, errors_in_one_line
from homeostat.server.assembly import (
    RunningServer,
    assemble_api,
    ground_parts,
    make_dead_man,
    open_notifications,
    server_health,
)
from homeostat.server.retention import Retention
from homeostat.server.settings import ServerSettings, server_settings
from homeostat.server.store import Store, open_store
from homeostat.server.tokens_api import TokenRegistry
from homeostat.web.stream import JournalTail

log = structlog.get_logger("server")

ADMIN_TOKEN = "admin"
LATE_START_S = 1.0


def main(
    settings: ServerSettings,
    components: tuple[Component, ...] = COMPONENTS,
    revisions: Sequence[Path] = (),
) -> None:
    configure_logging(settings.log_level)
    uvloop.run(serve(settings, components, revisions))


async def serve(
    settings: ServerSettings,
    components: tuple[Component, ...] = COMPONENTS,
    revisions: Sequence[Path] = (),
) -> None:
    """Make the parts, run the loops, take everything down again."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    clock, lag = SystemClock(), LoopLag()
    nats = settings.nats
    bus = Bus(BusSettings(nats.url, nats.user, nats.password(), "homeostat server", nats.ping_interval_s))
    async with open_store(settings, clock, components, revisions) as store, AsyncExitStack() as stack:
        parts = ground_parts(settings, store, bus, clock)
        limits = _connection_limits(settings)
        await lay_foundations(parts, components)
        telling = await stack.enter_async_context(open_notifications(settings, store, parts))
        # Only now: a standby must not seem to answer.
        (listener,) = open_listeners([HttpListener("api", settings.api.host, settings.api.port)])
        log.info("leading", epoch=store.leader.epoch, database=store.leader.engine.dialect.name)
        registry = TokenRegistry(store.appender, store.readers, Callers(store.readers, clock), clock)
        if store.open_term is None:
            await _issue_admin_token(settings, registry)
        parts.put(LoopLag, lag)
        if warning := owners_warning(settings.fleet):
            log.warning("nodes may name any project", remedy=warning)
        for warning in find_warnings(settings):
            log.warning("settings that are likely not meant", setting=warning)
        outside = parts.put(OutsideProbes, _outside_probes(settings.fleet, clock))
        path = parts.make(IngestLoop, write_path(components)(parts))
        armed, armable = settings.fleet.gate.armed, armable_names(components)
        arming = parts.put(Arming, Arming(store.appender, store.readers, clock, armed, armable))
        await arming.reload()
        parts.put(JournalView, journal_view(components))
        parts.put(ExposureSource, ExposureSource(partial(exposure_rows, parts, components=components)))
        served = await serve_components(parts, components)
        await path.listen()
        await path.load()
        tune_garbage_collector()
        health = partial(server_health, store, path)
        dead_man = make_dead_man(settings, store.leader.epoch, clock, health)
        tail = JournalTail(store.journal, parts.find(StreamCount))
        rules = retention_rules(components)
        retention = Retention(store.appender, store.readers, clock, settings.retention, rules)
        shown = RunningServer(
            store, telling, path, outside, arming, served, registry, dead_man, lag, tail, parts, components
        )
        app = assemble_api(settings, shown)
        await run_tasks(
            [
                *([] if dead_man is None else [Task("dead man", dead_man.run, forever=True)]),
                Task("late start", partial(_start_late, settings, store, registry)),
                Task("loop lag", lag.run, forever=True),
                Task("term", store.leader.keep, forever=True),
                Task("bus", bus.run, forever=True),
                Task("write path", path.run, forever=True),
                Task("outside probes", outside.run, forever=True),
                *(loop for each in served for loop in each.loops),
                Task("delivery", telling.delivery.run, forever=True),
                Task("retention", retention.run, forever=True),
                Task("open pages", tail.run, forever=True),
                Task("api", lambda: listener.serve(app, limits), forever=True),
            ],
            stopping=stopping,
            on_crash=partial(_record_crash, store.appender, clock),
        )


def _connection_limits(settings: ServerSettings) -> ConnectionLimits:
    limits = settings.connection_limits()
    if limits.in_all < settings.api.connections_max:
        log.warning(
            "fewer connections than api.connections_max: this process may not open more files (ulimit -n)",
            connections=limits.in_all,
        )
    return limits


async def _start_late(settings: ServerSettings, store: Store, registry: TokenRegistry) -> None:
    """What a start on a full disk could not write, as soon as it can be."""
    while store.open_term is not None:
        await asyncio.sleep(LATE_START_S)
        if store.appender.mode is Mode.WRITABLE:
            with suppress(StoreFull):
                await store.open_term()
                await _issue_admin_token(settings, registry)
                return


def _outside_probes(settings: FleetSettings, clock: Clock) -> OutsideProbes:
    probed, unprobed = host_probes(settings.hosts)
    for host, why in unprobed.items():
        log.warning(
            "no outside probe reaches this host: it is never declared down or recovered",
            host=host,
            reason=why,
        )
    return OutsideProbes(probed, settings, clock)


async def _record_crash(appender: Appender, clock: Clock, name: str, error: BaseException) -> None:
    at_ns = clock.wall_ns()
    event = LoopCrashed(name, f"{type(error).__name__}: {error}"[:500])
    draft = NewEvent(event, f"loop/{name}", at_ns, "server", f"loop/{name}/{at_ns}")
    await appender.append(Submission("server", (draft,)))


async def _issue_admin_token(settings: ServerSettings, registry: TokenRegistry) -> None:
    file = settings.api.admin_token_file
    if file is not None:
        token = read_secret(file, "api.admin_token_file")
        await registry.issue(ADMIN_TOKEN, Role.ADMIN, INFRASTRUCTURE, token)


if __name__ == "__main__":
    with errors_in_one_line():
        main(load(server_settings(), Path(sys.argv[1])))

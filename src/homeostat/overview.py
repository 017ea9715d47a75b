"""What a running server shows of itself: health, every room's set points, metrics, the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI

from homeostat.acting import Acting
from homeostat.contracts.nouns import INFRASTRUCTURE, SetPoint
from homeostat.drilling import Drilling
from homeostat.faults.api import FaultsApi
from homeostat.faults.loop import FaultPath
from homeostat.faults.promises import FaultPromises
from homeostat.faults.what_if_api import WhatIfApi
from homeostat.fleet.hosts_api import HostsApi
from homeostat.fleet.promises import promises as fleet_promises
from homeostat.http_api import Overview, assemble
from homeostat.kernel.access import Caller
from homeostat.kernel.appender import Mode
from homeostat.kernel.loops import LoopLag
from homeostat.leadership import Store
from homeostat.metrics import Metrics, SetPoints, Sources
from homeostat.monitors.probes import OutsideProbes
from homeostat.notices.dead_man import DeadMan
from homeostat.notices.promises import NoticePromises
from homeostat.notices.silences_api import SilencesApi
from homeostat.notices.subscriptions_api import NoticesApi
from homeostat.settings import ServerSettings
from homeostat.telling import Telling
from homeostat.tokens_api import Registry
from homeostat.web.console import Console
from homeostat.web.live import Tail
from homeostat.web.sessions import Links, Sessions


def health_of(store: Store, path: FaultPath) -> str:
    """Empty while this server can write and hear, else what is wrong."""
    if store.appender.mode is not Mode.WRITABLE:
        return store.appender.why
    if store.leader.trouble:
        return store.leader.trouble
    return "" if path.hearing.connected else "NATS is not connected: nothing is heard from the nodes"


def promises_of(
    settings: ServerSettings, store: Store, telling: Telling, path: FaultPath, dead_man: DeadMan | None
) -> tuple[SetPoints, ...]:
    """Every room's set points, in the order of `homeostat status`."""

    async def of_fleet(caller: Caller) -> tuple[SetPoint, ...]:
        mine = caller.may_read(INFRASTRUCTURE)
        return fleet_promises(path.world.topology, path.watch.doubt) if mine else ()

    faults = FaultPromises(store.readers, store.leader.clock, settings.faults)
    notices = NoticePromises(telling.delivery, store.readers, settings.faults.told_within_s)
    return (of_fleet, faults, notices, *(() if dead_man is None else (dead_man,)))


@dataclass(frozen=True, slots=True)
class Shown:
    """The parts of a server that can be looked at."""

    store: Store
    telling: Telling
    path: FaultPath
    outside: OutsideProbes
    acting: Acting
    drilling: Drilling
    registry: Registry
    dead_man: DeadMan | None
    lag: LoopLag
    tail: Tail


def _hosts_parts(shown: Shown) -> Mapping[str, object]:
    """What the routes about hosts stand on."""
    path, aftermath, placing = shown.path, shown.acting.aftermath, shown.acting.placing
    return {
        "hosts": HostsApi(
            topology=lambda: path.world.topology,
            probed=lambda: shown.outside.latest,
            doubt=lambda: path.watch.doubt,
            doubts=lambda: path.watch.doubts,
            fenced=lambda host, by, said: path.record(lambda entry: entry.fenced(host, by, said)),
            hold=lambda host, reason, by: path.record(lambda entry: entry.hold(host, reason, by)),
            injected=lambda host, what, at_ns, by: path.record(
                lambda entry: entry.injected(host, what, at_ns, by)
            ),
            wall_ns=shown.registry.clock.wall_ns,
            arming=shown.acting.arming,
        ),
        "what_if": WhatIfApi(
            topology=lambda: path.world.topology,
            subscriptions=shown.telling.subscriptions,
            verdict=aftermath.verdict,
            driver=aftermath.driver,
            cloud=shown.acting.marker.cloud,
            clock=shown.registry.clock,
            quiet=shown.telling.silences.covering,
            placement=placing.foretell,
            may_start=placing.verdict,
        ),
    }


def api_of(settings: ServerSettings, shown: Shown) -> FastAPI:
    """The API: what each room's routes find in `app.state`."""
    store, telling, path = shown.store, shown.telling, shown.path
    health = partial(health_of, store, path)
    promises = promises_of(settings, store, telling, path, shown.dead_man)
    sources = Sources(
        promises=promises,
        health=health,
        appender=store.appender,
        readers=store.readers,
        delivery=telling.delivery,
        path=path,
        lag=shown.lag,
        epoch=store.leader.epoch,
    )
    return assemble(
        Overview(promises, health),
        shown.registry.callers,
        settings.api.body_max_bytes,
        {
            "topology": lambda: path.world.topology,
            "faults": FaultsApi(store.readers, store.journal, telling.subscriptions, telling.known_drills),
            "drills": shown.drilling.api,
            "drilled_hosts": shown.drilling.hosts_api,
            "notices": NoticesApi(
                enrol=path.enrol,
                readers=store.readers,
                subscriptions=telling.subscriptions,
                check=telling.check,
                transport=telling.transport,
                release=telling.delivery.release,
                clock=shown.registry.clock,
                settings=settings.notices,
            ),
            "silences": SilencesApi(
                store.appender,
                store.readers,
                telling.silences,
                lambda: path.world.topology,
                shown.registry.clock,
                settings.notices,
            ),
            "notice_streams": telling.streams,
            "tokens": shown.registry,
            "console": Console(
                Links(shown.registry.clock),
                Sessions(store.appender, store.readers, shown.registry.clock),
                promises,
                store.readers,
                shown.tail,
                shown.registry.clock,
            ),
            "metrics": Metrics(sources, is_open=settings.api.metrics_open),
            **_hosts_parts(shown),
        },
    )

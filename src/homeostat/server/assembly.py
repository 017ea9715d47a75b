"""Assembles the parts of a server that components stand on: notifications, hosts, API. Composition only.

Notifications are the subscriptions in memory, the silences, delivery and streams. The last part is health,
the set points, and the records that the routes find in `app.state`. What components add comes from the list.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI

from homeostat.components import COMPONENTS, journal_view, navigation
from homeostat.contracts.component import Component, ServedComponent, ServerParts
from homeostat.contracts.health import HealthSource, ServerHealth, ServerSigns, judge_health
from homeostat.contracts.nouns import INFRASTRUCTURE, SetPoint, SetPointState
from homeostat.fleet.api import HostRecords, HostsApi
from homeostat.fleet.fencing import make_fence
from homeostat.fleet.gate import Arming
from homeostat.fleet.probes import OutsideProbes
from homeostat.fleet.set_points import set_points as fleet_promises
from homeostat.fleet.settings import FleetSettings, owners_warning
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.access import Caller
from homeostat.kernel.appender import Mode
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.config import read_secret
from homeostat.kernel.connections import StreamCount
from homeostat.kernel.database import Readers
from homeostat.kernel.follower import FollowedAppender
from homeostat.kernel.journal import Journal, JournalAppender
from homeostat.kernel.leadership import Leadership
from homeostat.kernel.loops import LoopLag
from homeostat.notices.api import NoticeStreams
from homeostat.notices.attempts import DeliveryDependencies, PictureArchive
from homeostat.notices.dead_man import DeadMan, DeadManDependencies, any_network_guard
from homeostat.notices.delivery import Delivery
from homeostat.notices.set_points import NoticeSetPoints
from homeostat.notices.silences_api import SilencesApi
from homeostat.notices.subscriptions import Silences, Subscriptions, on_subscription_change
from homeostat.notices.subscriptions_api import NoticesApi
from homeostat.notices.targets import make_guard
from homeostat.notices.webhook import SystemLookup, TargetCheck, WebhookTransport
from homeostat.ports import Fence, NewId
from homeostat.server.http_api import ApiParts, assemble
from homeostat.server.metrics import Metrics, MetricSources
from homeostat.server.settings import ServerSettings
from homeostat.server.status import SetPoints, StatusSources
from homeostat.server.store import Store
from homeostat.server.tokens_api import TokenRegistry
from homeostat.web.page_route import Console
from homeostat.web.sessions import Links, Sessions
from homeostat.web.stream import JournalTail


def ground_parts(settings: ServerSettings, store: Store, bus: Messages, clock: Clock) -> ServerParts:
    """The kernel's part of a server and its drivers, where components find them."""
    parts = ServerParts(settings.section)
    parts.put(Clock, clock)
    parts.put(Messages, bus)
    parts.put(Leadership, store.leader)
    parts.put(JournalAppender, store.appender)
    parts.put(FollowedAppender, store.appender)
    parts.put(Readers, store.readers)
    parts.put(Journal, store.journal)
    parts.put(NewId, lambda: uuid.uuid4().hex[:12])
    parts.put(StreamCount, StreamCount(settings.api.streams_per_token, settings.api.streams_per_project))
    fence = make_fence(settings.fleet.fencing)
    if fence is not None:
        parts.put(Fence, fence)
    return parts


@dataclass(frozen=True, slots=True)
class NotificationServices:
    """Everything that tells people."""

    subscriptions: Subscriptions
    silences: Silences
    check: TargetCheck
    transport: WebhookTransport
    delivery: Delivery
    streams: NoticeStreams


@asynccontextmanager
async def open_notifications(
    settings: ServerSettings, store: Store, parts: ServerParts
) -> AsyncIterator[NotificationServices]:
    """Subscriptions in memory, and the way out."""
    clock = parts.find(Clock)
    subscriptions = Subscriptions(store.readers)
    await subscriptions.reload()
    zones = {each.host: each.zone for each in settings.fleet.hosts if each.zone}
    silences = Silences(store.readers, clock, zones)
    await silences.reload()  # before anything is decided: a start must not tell what is silenced
    own_guard = make_guard(settings.notices.allowed_networks, settings.listeners())
    lookup = SystemLookup()
    transport = WebhookTransport(own_guard, lookup, settings.notices)
    recalled = parts.find(PictureArchive).lookup
    delivery = Delivery(
        DeliveryDependencies(store.appender, store.readers, subscriptions, transport, recalled, clock),
        settings.notices,
    )
    streams = NoticeStreams(store.readers, recalled, settings.notices, parts.find(StreamCount))
    delivery.on_queued(streams.look)
    parts.put(Subscriptions, subscriptions)
    parts.put(Silences, silences)
    parts.put(Delivery, delivery)
    try:
        yield NotificationServices(
            subscriptions,
            silences,
            TargetCheck(own_guard, lookup, settings.notices.connect_timeout_s),
            transport,
            delivery,
            streams,
        )
    finally:
        await transport.close()
        lookup.close()


def make_dead_man(settings: ServerSettings, epoch: int, clock: Clock, health: HealthSource) -> DeadMan | None:
    wanted = settings.notices.dead_man
    if wanted is None:
        return None
    secret = read_secret(wanted.secret_file, "notices.dead_man.secret_file")
    guard = any_network_guard(settings.listeners())
    return DeadMan(
        DeadManDependencies(guard, clock, lambda: health().reason, epoch, secret), wanted, settings.notices
    )


def server_health(store: Store, path: IngestLoop) -> ServerHealth:
    """What this server can write and hear now."""
    mode, why, topology = store.appender.mode, store.appender.why, path.world.topology
    return judge_health(
        ServerSigns(
            store_full=why if mode is Mode.FULL else "",
            store_unavailable=why if mode is Mode.UNAVAILABLE else "",
            term=store.leader.trouble,
            connected=path.hearing.connected,
            expected=topology.expected,
            heard=topology.heard,
            evidence=path.watch.doubt,
        )
    )


@dataclass(frozen=True, slots=True)
class RunningServer:
    """The parts of a server that can be looked at. `served` is what the components added."""

    store: Store
    telling: NotificationServices
    path: IngestLoop
    outside: OutsideProbes
    arming: Arming
    served: Sequence[ServedComponent]
    registry: TokenRegistry
    dead_man: DeadMan | None
    lag: LoopLag
    tail: JournalTail
    parts: ServerParts
    components: tuple[Component, ...] = COMPONENTS


def unlisted_owners(fleet: FleetSettings) -> tuple[SetPoint, ...]:
    """A row that is unknown while nodes may name any project: what they say of projects is not checked."""
    warning = owners_warning(fleet)
    if not warning:
        return ()
    promise = "nodes that name a project that is not theirs"
    return (SetPoint("fleet", promise, 0, "nodes", None, SetPointState.UNKNOWN, warning),)


def server_set_points(settings: ServerSettings, shown: RunningServer) -> tuple[SetPoints, ...]:
    """Every component's set points, in the order of `homeostat status`."""
    path, store = shown.path, shown.store

    async def of_fleet(caller: Caller) -> tuple[SetPoint, ...]:
        if not caller.may_read(INFRASTRUCTURE):
            return ()
        topology = path.world.topology
        rows = fleet_promises(topology, path.watch.doubt, path.watch.unseen(topology))
        return (*rows, *unlisted_owners(settings.fleet))

    notices = NoticeSetPoints(shown.telling.delivery, store.readers, settings.section("faults").told_within_s)
    of_components = [each for served in shown.served for each in served.set_points]
    dead_man = () if shown.dead_man is None else (shown.dead_man,)
    return (of_fleet, *of_components, notices, *dead_man)


def _hosts_api(shown: RunningServer, health: HealthSource) -> HostsApi:
    """What the routes about hosts stand on."""
    path = shown.path
    return HostsApi(
        topology=lambda: path.world.topology,
        probed=lambda: shown.outside.latest,
        answers=path.watch.answers,
        health=health,
        doubts=lambda: path.watch.doubts,
        alone=lambda: path.watch.alone_in_words,
        records=shown.parts.find(HostRecords),
        wall_ns=shown.registry.clock.wall_ns,
        arming=shown.arming,
    )


def assemble_api(settings: ServerSettings, shown: RunningServer) -> FastAPI:
    """The API: what the routes of each component find in `app.state`."""
    store, telling, path = shown.store, shown.telling, shown.path
    health = partial(server_health, store, path)
    status = StatusSources(server_set_points(settings, shown), health)
    sources = MetricSources(
        status=status,
        components=tuple(metric for served in shown.served for metric in served.metrics),
        appender=store.appender,
        readers=store.readers,
        delivery=telling.delivery,
        path=path,
        lag=shown.lag,
        epoch=store.leader.epoch,
    )
    return assemble(
        ApiParts(
            status,
            shown.registry.callers,
            settings.api.body_max_bytes,
            {
                "topology": lambda: path.world.topology,
                "hosts": shown.parts.put(HostsApi, _hosts_api(shown, health)),
                "notices": NoticesApi(
                    enrol=lambda change: path.record(partial(on_subscription_change, change)),
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
                    status.set_points,
                    health,
                    store.readers,
                    shown.tail,
                    shown.registry.clock,
                    journal_view(shown.components),
                    navigation(shown.components),
                    [panel for served in shown.served for panel in served.panels],
                ),
                "metrics": Metrics(sources, is_open=settings.api.metrics_open),
                **{name: part for served in shown.served for name, part in served.state.items()},
            },
            shown.components,
        )
    )

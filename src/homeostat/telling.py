"""Everything that tells people, in the order in which it is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from homeostat.drills.leader.known import KnownDrills
from homeostat.faults.herald import Herald, recall
from homeostat.kernel.clock import Clock
from homeostat.leadership import Store
from homeostat.nats_settings import secret_in
from homeostat.notices.dead_man import DeadMan, DeadManParts, anywhere
from homeostat.notices.delivery import Delivery
from homeostat.notices.parts import DeliveryParts
from homeostat.notices.silences import Silences
from homeostat.notices.streams import Streams
from homeostat.notices.subscriptions import Subscriptions
from homeostat.notices.targets import guard
from homeostat.notices.webhook import SystemLookup, TargetCheck, WebhookTransport
from homeostat.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Telling:
    """Everything that tells people."""

    subscriptions: Subscriptions
    silences: Silences
    check: TargetCheck
    transport: WebhookTransport
    delivery: Delivery
    herald: Herald
    streams: Streams
    known_drills: KnownDrills


@asynccontextmanager
async def open_telling(settings: ServerSettings, store: Store, clock: Clock) -> AsyncIterator[Telling]:
    """Subscriptions in memory, the way out, and the herald between them and the fault path."""
    subscriptions = Subscriptions(store.readers)
    await subscriptions.reload()
    zones = {each.host: each.zone for each in settings.fleet.hosts if each.zone}
    silences = Silences(store.readers, clock, zones)
    await silences.reload()  # before anything is decided: a start must not tell what is silenced
    own_guard = guard(settings.notices.allowed_networks, settings.listeners())
    lookup = SystemLookup()
    transport = WebhookTransport(own_guard, lookup, settings.notices)
    known_drills = KnownDrills(store.readers, clock)
    await known_drills.reload()
    recalled = partial(recall, store.readers, known_drills)
    delivery = Delivery(
        DeliveryParts(store.appender, store.readers, subscriptions, transport, recalled, clock),
        settings.notices,
    )
    streams = Streams(store.readers, recalled, settings.notices)
    delivery.on_queued(streams.look)
    try:
        yield Telling(
            subscriptions,
            silences,
            TargetCheck(own_guard, lookup, settings.notices.connect_timeout_s),
            transport,
            delivery,
            Herald(subscriptions, delivery, store.readers, silences, known_drills),
            streams,
            known_drills,
        )
    finally:
        await transport.close()
        lookup.close()


def dead_man_of(
    settings: ServerSettings, epoch: int, clock: Clock, health: Callable[[], str]
) -> DeadMan | None:
    wanted = settings.notices.dead_man
    if wanted is None:
        return None
    secret = secret_in(wanted.secret_file, "notices.dead_man.secret_file")
    guard = anywhere(settings.listeners())
    return DeadMan(DeadManParts(guard, clock, health, epoch, secret), wanted, settings.notices)

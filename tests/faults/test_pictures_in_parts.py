"""A host with more resources than one message holds: its picture comes in parts, some of which are lost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from homeostat.components import catalogue
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    MESSAGE_BYTES_MAX,
    Candidate,
    ResourceStatus,
    Snapshot,
    candidates_digest,
    decode,
    encode,
)
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.notice_bridge import NoticeBridge
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.model import SnapshotAssembly
from homeostat.fleet.settings import FleetSettings
from homeostat.ingest.entry import IngestDependencies
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.bus import Bus, BusSettings, OnMessage
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.loops import Task, run_tasks
from homeostat.node.link import LinkSettings, NodeLink
from homeostat.node.observations import ObservationStore
from homeostat.notices.attempts import DeliveryDependencies
from homeostat.notices.delivery import Delivery
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import Subscriptions
from homeostat.ports import NoWebhookReply, WebhookRequest, WebhookResult
from real_parts import NatsServer, eventually
from store_parts import Store

N1 = HostId("n1")
UP, STOPPED = ResourceState.UP, ResourceState.STOPPED
GUESTS = 3000


def levels(count: int) -> list[ResourceStatus]:
    """More than one message holds."""
    return [
        ResourceStatus(
            ResourceId(f"guest-{number:05}"),
            ResourceKind.GUEST,
            Owner("blue"),
            "ocf:x:y",
            UP,
            "r" * 100,
            1,
            number + 1,
        )
        for number in range(count)
    ]


def message(part: int, parts: int, names: str, seq: int = 9) -> Snapshot:
    rows = tuple(
        ResourceStatus(ResourceId(name), ResourceKind.GUEST, Owner("blue"), "ocf:x:y", UP, "", 1, 1)
        for name in names
    )
    return Snapshot(N1, "b1", "i1", seq, rows, 1, (), part, parts)


def test_a_picture_is_whole_when_its_last_missing_part_came_in_whatever_order() -> None:
    pictures = SnapshotAssembly()
    assert pictures.add(message(3, 3, "e")) is None
    assert pictures.add(message(1, 3, "ab")) is None
    assert pictures.add(message(1, 3, "ab")) is None, "the same part twice is one part"
    whole = pictures.add(message(2, 3, "cd"))
    assert whole is not None and whole.resources == set("abcde")
    assert pictures.add(message(2, 3, "cd")) is None, "it begins anew"


def test_parts_of_two_pictures_are_never_put_together() -> None:
    pictures = SnapshotAssembly()
    assert pictures.add(message(1, 2, "ab", seq=9)) is None
    assert pictures.add(message(2, 2, "cd", seq=10)) is None
    whole = pictures.add(message(1, 2, "a", seq=10))
    assert whole is not None and whole.resources == set("acd")


@pytest.mark.parametrize("other", [{"incarnation": "i2"}, {"boot": "b2"}, {"seq": 10}, {"parts": 3}])
def test_a_part_belongs_to_one_incarnation_one_store_and_one_observation(other: dict[str, object]) -> None:
    """A node that was started again between two parts may have another configuration."""
    pictures = SnapshotAssembly()
    assert pictures.add(message(1, 2, "ab")) is None
    assert pictures.add(replace(message(2, 2, "cd"), **other)) is None  # type: ignore[arg-type]


class Losing:
    """A node's bus that loses some of the pictures it is given."""

    def __init__(self, bus: Bus, loses: Callable[[Snapshot], bool]) -> None:
        self._bus, self._loses = bus, loses
        self.sent: list[tuple[int, int, int]] = []
        self.lost = 0

    @property
    def connected(self) -> bool:
        return self._bus.connected

    def on_reconnect(self, told: Callable[[], None]) -> None:
        self._bus.on_reconnect(told)

    async def subscribe(self, pattern: str, hear: OnMessage) -> None:
        await self._bus.subscribe(pattern, hear)

    async def flush(self, timeout_s: float = 1.0) -> bool:
        return await self._bus.flush(timeout_s)

    async def publish(self, subject: str, body: bytes) -> bool:
        if subject.endswith(".levels"):
            told = decode(Snapshot, body)
            self.sent.append((told.part, told.parts, len(body)))
            if self._loses(told):
                self.lost += 1
                return True
        return await self._bus.publish(subject, body)


class Nobody:
    """In the place of the transport: there are no subscriptions here."""

    async def post(self, request: WebhookRequest) -> WebhookResult:
        return NoWebhookReply("nobody")


@asynccontextmanager
async def server(store: Store, nats: NatsServer) -> AsyncIterator[IngestLoop]:
    """A fault path on a real store and a real NATS."""
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    subscriptions = Subscriptions(store.readers)
    bus = await Bus.connect(BusSettings(nats.url, "server", "server-secret", ping_interval_s=0.2))

    async def recall(faults: object) -> dict[object, object]:
        return {}

    parts = DeliveryDependencies(appender, store.readers, subscriptions, Nobody(), recall, SystemClock())  # type: ignore[arg-type]
    herald = NoticeBridge(subscriptions, Delivery(parts, NoticesSettings()), store.readers)
    path = IngestLoop(
        IngestDependencies(
            appender=appender,
            readers=store.readers,
            bus=bus,
            clock=SystemClock(),
            herald=herald,
            deciders=FaultDeciders(FaultsSettings()),
            fleet=FleetSettings(sweep_s=0.02),
            epoch=1,
            own_lag_s=lambda: 0.0,
        )
    )
    await path.listen()
    task = asyncio.create_task(path.run())
    try:
        yield path
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await appender.close()
        await bus.close()


@asynccontextmanager
async def node(
    nats: NatsServer,
    folder: Path,
    rows: list[ResourceStatus],
    loses: Callable[[Snapshot], bool],
    offers: tuple[Candidate, ...] = (),
) -> AsyncIterator[Losing]:
    """A node whose store knows these levels already."""
    path = folder / "observations.db"
    ObservationStore(path).close()
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM levels")
        database.executemany(
            "INSERT INTO levels VALUES (?, ?)", [(row.resource, encode(row)) for row in rows]
        )
        database.execute("INSERT OR REPLACE INTO facts VALUES ('seq', ?)", (str(max(GUESTS, len(rows))),))
    database.close()
    store = ObservationStore(path)
    bus = Bus(BusSettings(nats.url, "n1", "n1-secret", ping_interval_s=0.2))
    losing = Losing(bus, loses)
    link = NodeLink(LinkSettings(N1, 0.1, offers=offers), losing, store)
    await link.listen()
    stopping = asyncio.Event()
    group = asyncio.create_task(run_tasks([Task("bus", bus.run), *link.tasks()], stopping=stopping))
    try:
        yield losing
    finally:
        stopping.set()
        await group
        store.close()


async def test_lost_parts_are_asked_for_again_and_only_a_whole_picture_says_what_is_gone(
    nats: NatsServer, store: Store, tmp_path: Path
) -> None:
    async with server(store, nats) as path:
        topology = lambda: path.world.topology  # noqa: E731 - the world is replaced when a commit fails
        often = {"second": 0}

        def loses_the_second_part_twice(told: Snapshot) -> bool:
            often["second"] += told.part == 2
            return told.part == 2 and often["second"] <= 2

        async with node(nats, tmp_path, levels(GUESTS), loses_the_second_part_twice) as spoken:
            await eventually(lambda: len(topology().resources) == GUESTS, 30, "the whole picture")
        assert spoken.lost == 2
        assert {parts for _, parts, _ in spoken.sent} == {max(part for part, _, _ in spoken.sent)}
        assert len({part for part, _, _ in spoken.sent}) > 2, "it does not fit into two messages"
        assert all(size <= MESSAGE_BYTES_MAX for _, _, size in spoken.sent)

        # The next life of the node knows two guests less; at first its last part never arrives.
        gone = [ResourceId("guest-00000"), ResourceId(f"guest-{GUESTS - 1:05}")]
        fewer = [row for row in levels(GUESTS) if row.resource not in gone]
        arrives = asyncio.Event()

        def loses_the_last_part(told: Snapshot) -> bool:
            return told.part == told.parts and not arrives.is_set()

        async with node(nats, tmp_path, fewer, loses_the_last_part) as spoken:
            await eventually(lambda: spoken.lost >= 2, 30, "two pictures without their last part")
            assert not [row for row in topology().resources.values() if row.state is STOPPED]
            arrives.set()
            await eventually(
                lambda: (
                    sorted(row.id for row in topology().resources.values() if row.state is STOPPED) == gone
                ),
                30,
                "what is gone is stopped, and nothing else",
            )


@pytest.mark.slow
async def test_ten_thousand_guests_of_one_host_are_known_and_all_its_offers(
    nats: NatsServer, store: Store, tmp_path: Path
) -> None:
    rows = levels(10_000)
    offers = tuple(Candidate(row.resource, row.kind, row.owner, row.agent, "n1") for row in rows)
    async with server(store, nats) as path:
        topology = lambda: path.world.topology  # noqa: E731 - the world is replaced when a commit fails
        async with node(nats, tmp_path, rows, lambda _: False, offers) as spoken:
            await eventually(lambda: len(topology().offers.get(N1, ())) == 10_000, 60, "all offers")
            await eventually(lambda: len(topology().resources) == 10_000, 60, "all guests")
            await eventually(lambda: not path.world.pictures.awaited(topology(), [N1]), 60, "all of it")
        assert path.hearing.refused == 0
        assert all(size <= MESSAGE_BYTES_MAX for _, _, size in spoken.sent)
        assert topology().offered[N1] == candidates_digest(offers)

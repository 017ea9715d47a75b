"""What tests of notices are made of: pictures, subscriptions, real consumers on loopback, a real store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from aiohttp import web

from homeostat.components import catalogue, load_schemas
from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import FaultId, FaultKind, Owner, Severity
from homeostat.faults.notice_bridge import Announcement, NoticeBridge
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import METADATA, Readers, open_engine
from homeostat.kernel.journal import EventIndex, Journal, NewEvent, Seq, Submission
from homeostat.notices import outbox, store
from homeostat.notices.attempts import DeliveryDependencies
from homeostat.notices.delivery import Delivery
from homeostat.notices.model import (
    Endpoint,
    FaultPicture,
    Notice,
    NoticeState,
    NoticeTransition,
    Subscription,
)
from homeostat.notices.settings import NoticesSettings
from homeostat.notices.subscriptions import SubscriptionChange, Subscriptions
from homeostat.notices.targets import make_guard
from homeostat.notices.webhook import SystemLookup, WebhookTransport
from homeostat.ports import Transport
from real_parts import PATIENCE

SECRET = "0123456789abcdef-secret"
LOOPBACK = (ip_network("127.0.0.0/8"),)
QUICK = NoticesSettings(
    allowed_networks=LOOPBACK,
    first_wait_s=0.01,
    longest_wait_s=0.05,
    refused_first_wait_s=0.01,
    refused_longest_wait_s=0.05,
    connect_timeout_s=0.3,
    total_timeout_s=0.5,
    stop_timeout_s=1.0,
    circuit_after=3,
)


def picture(fault: str = "f-1", owner: str = "shop", **more: Any) -> FaultPicture:
    """A fault of one project."""
    plain = FaultPicture(
        id=FaultId(fault),
        kind=FaultKind.RESOURCE_DOWN,
        severity=Severity.MAJOR,
        about=f"resource/web-{fault}",
        owner=Owner(owner),
        reason="the process died",
        raised_ns=1_700_000_000_123_456_789,
    )
    return replace(plain, **more)


def subscription(name: str = "s", owner: str = "shop", url: str = "", **more: Any) -> Subscription:
    """Somebody who wants to be told."""
    endpoints = (Endpoint(1, url or "http://127.0.0.1:9/hear"),)
    plain = Subscription(name, Owner(owner), endpoints, SECRET, "k1", 1)
    return replace(plain, **more)


async def until(condition: Callable[[], bool], *, deadline_s: float = 8.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE * deadline_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class Heard:
    """One request as the consumer saw it."""

    key: str
    body: bytes
    signature: str
    path: str


Behave = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


@dataclass
class Consumer:
    """A real HTTP server. `behave` answers the n-th request (from 0); what it answered is in `status`."""

    behave: Behave | None = None
    heard: list[Heard] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    @property
    def keys(self) -> list[str]:
        return [each.key for each in self.heard]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        number = len(self.heard)
        headers = request.headers
        self.heard.append(
            Heard(headers.get("Idempotency-Key", ""), body, headers["Homeostat-Signature"], request.path)
        )
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return web.Response() if self.behave is None else await self.behave(request, number)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def consumer(behave: Behave | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[Consumer]:
    """A consumer that listens on a free port."""
    made = Consumer(behave)
    site = web.Application(client_max_size=16 * 1024 * 1024)
    site.router.add_route("*", "/{rest:.*}", made.answer)
    runner = web.AppRunner(site, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    made.url = f"http://{host}:{runner.addresses[0][1]}/hear"
    try:
        yield made
    finally:
        await runner.cleanup()


def dead_url() -> str:
    """Nobody listens there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/hear"


def fault_of(shown: FaultPicture) -> Fault:
    """The open fault of which this is the picture; nobody else suffers from it."""
    return Fault(
        id=shown.id,
        kind=shown.kind,
        severity=shown.severity,
        about=shown.about,
        owner=shown.owner,
        reason=shown.reason,
        state=FaultState.OPEN,
        raised_seq=Seq(1),
        trace=f"trace-{shown.id}",
        raised_ns=shown.raised_ns,
        raised_mono_ns=None,
    )


class NoDelivery:
    """Nobody is told."""

    def offer(self, notices: Sequence[Notice], pictures: Mapping[FaultId, FaultPicture]) -> None:
        """Nothing."""


class World:
    """A store with appender, and a faults room of three lines."""

    def __init__(self, appender: Appender, readers: Readers, settings: NoticesSettings) -> None:
        self.appender, self.readers, self.settings = appender, readers, settings
        self.journal = Journal(readers, catalogue())
        self.subscriptions = Subscriptions(readers)
        self.pictures: dict[FaultId, FaultPicture] = {}
        self.recalled: list[FaultId] = []
        self.open: list[FaultPicture] = []
        self.herald = NoticeBridge(self.subscriptions, NoDelivery(), readers)  # type: ignore[arg-type]

    async def subscribe(self, *rows: Subscription) -> None:
        changes = tuple(store.insert_subscription(row) for row in rows)
        await self.appender.append(Submission("test", changes=changes))
        await self.subscriptions.reload()

    async def remove(self, name: str) -> None:
        await self.appender.append(Submission("test", changes=(store.remove_subscription(name),)))
        await self.subscriptions.reload()

    async def tell(self, delivery: Delivery | None, *faults: FaultPicture) -> tuple[Notice, ...]:
        """Queue in one transaction with its event, then offer: the way of the faults room."""
        told: list[Notice] = []
        for fault in faults:
            cleared = fault.cleared_ns is not None
            transition = NoticeTransition.CLEARED if cleared else NoticeTransition.RAISED
            heard = None
            if cleared:
                heard = (await self.readers.read(lambda c, f=fault: store.notified_destinations(c, [f.id])))[
                    fault.id
                ]
            self.pictures[fault.id] = fault
            cause = outbox.NoticeCause(EventIndex(0), 1, SystemClock().wall_ns(), f"trace-{fault.id}")
            queued = outbox.queue(fault, transition, self.subscriptions.all(), cause, heard)
            raised = FaultRaised(
                fault.id, fault.kind, fault.severity, fault.about, fault.owner, fault.reason, fault.raised_ns
            )
            event = NewEvent(raised, f"fault/{fault.id}", cause.at_ns, "test", cause.trace)
            receipt = await self.appender.append(Submission("t", (event, *queued.drafts), queued.changes))
            told.extend(outbox.with_receipt(queued.notices, receipt))
        if delivery is not None:
            delivery.offer(told, self.pictures)
        return tuple(told)

    async def enrol(self, enrolment: SubscriptionChange) -> None:
        """The fault path's way: one transaction, then the subscriptions in memory. `open` are the faults."""
        told = self.herald.enrol(
            Announcement((), (), (), {}), [(enrolment, EventIndex(0))], map(fault_of, self.open), 1
        )
        events, changes = (enrolment.draft, *told.drafts), (enrolment.change, *told.changes)
        self.herald.tell(told, await self.appender.append(Submission("test", events, changes)))

    async def recall(self, faults: Sequence[FaultId]) -> Mapping[FaultId, FaultPicture]:
        self.recalled.extend(faults)
        return {fault: self.pictures[fault] for fault in faults if fault in self.pictures}

    async def rows(self) -> dict[str, Notice]:
        found = await self.readers.read(
            lambda c: store.notices(c, owner=None, state=None, before=None, limit=10_000)
        )
        return {row.key: row for row in found}

    async def until_none_pending(self, deadline_s: float = 8.0) -> dict[str, Notice]:
        async with asyncio.timeout(PATIENCE * deadline_s):
            while True:
                rows = await self.rows()
                if all(row.state is not NoticeState.PENDING for row in rows.values()):
                    return rows
                await asyncio.sleep(0.01)

    async def kinds(self, subject: str) -> list[str]:
        events = await self.journal.read(0, 1000, subject=subject)  # type: ignore[arg-type]
        return [each.kind for each in events]

    @asynccontextmanager
    async def delivering(
        self, transport: Transport | None = None, settings: NoticesSettings | None = None, **more: Any
    ) -> AsyncIterator[Delivery]:
        """A running delivery over real HTTP."""
        settings = settings or self.settings
        lookup = SystemLookup()
        made = transport or WebhookTransport(make_guard(settings.allowed_networks, ()), lookup, settings)
        parts = DeliveryDependencies(
            appender=self.appender,
            readers=self.readers,
            subscriptions=self.subscriptions,
            transport=made,
            recall=self.recall,
            clock=SystemClock(),
            jitter=lambda: 0.5,
        )
        delivery = Delivery(replace(parts, **more), settings)
        task = asyncio.create_task(delivery.run())
        try:
            yield delivery
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await made.close()
            lookup.close()
            assert task.cancelled() or not isinstance(task.exception(), Exception), task.exception()


@asynccontextmanager
async def world(folder: Path, settings: NoticesSettings = QUICK) -> AsyncIterator[World]:
    """A SQLite store of its own, made of the tables in the code."""
    url = f"sqlite:///{folder}/homeostat.db"
    engine = open_engine(url)
    load_schemas()
    METADATA.create_all(engine)
    reading = open_engine(url, read_only=True)
    readers = Readers(reading, threads=2)
    appender = Appender(engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock())
    appender.start()
    try:
        yield World(appender, readers, settings)
    finally:
        await appender.close()
        readers.close()
        engine.dispose()
        reading.dispose()

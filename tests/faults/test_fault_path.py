"""The fault path on a real store: nothing is told before its commit, and a failed one loses nothing.

The bus is a stand-in that keeps what was published; everything else is the real thing, on both engines.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from homeostat.components import catalogue
from homeostat.contracts.events.notices import SubscriptionCreated
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Heartbeat,
    Intent,
    Observations,
    ResourceStatus,
    ResourceTransition,
    Subjects,
    digest,
    encode,
)
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.notice_bridge import NO_DRILL_TAGS, DrillTags, NoticeBridge
from homeostat.faults.settings import FaultsSettings
from homeostat.faults.store import fault_table
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.suspicion import Probed
from homeostat.ingest.entry import IngestDependencies
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.errors import Deposed, StoreFull, StoreUnavailable
from homeostat.kernel.journal import NewEvent, Receipt, Submission
from homeostat.notices.model import Endpoint, Notice, Subscription
from homeostat.notices.store import insert_subscription, outbox, replace_subscription
from homeostat.notices.store import subscription as subscription_table
from homeostat.notices.subscriptions import (
    Silences,
    SubscriptionChange,
    Subscriptions,
    on_subscription_change,
)
from store_parts import Store, until

FLEET = FleetSettings(sweep_s=0.02)
UP, DOWN = ResourceState.UP, ResourceState.DOWN


@dataclass
class StandInBus:
    """Keeps what is published; `say` is a node speaking."""

    connected: bool = True
    published: list[tuple[str, bytes]] = field(default_factory=list)
    heard: dict[str, Callable[[str, bytes], None]] = field(default_factory=dict)

    async def subscribe(self, pattern: str, hear: Callable[[str, bytes], None]) -> None:
        self.heard[pattern] = hear

    async def publish(self, subject: str, body: bytes) -> bool:
        self.published.append((subject, body))
        return True

    def say(self, subject: str, message: object) -> None:
        self.heard["node.*." + subject.split(".")[2]](subject, encode(message))

    def answers(self, subject: str) -> int:
        return sum(each == subject for each, _ in self.published)


@dataclass
class Offers:
    """In the place of the delivery: what was offered, and how many faults were committed by then."""

    store: Store
    offered: list[Notice] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    pictures: dict[str, Any] = field(default_factory=dict)

    def catch_up(self, subscriptions: tuple[str, ...]) -> None:
        """Nothing is behind here."""

    def offer(self, notices: tuple[Notice, ...], pictures: Any) -> None:
        self.offered += notices
        self.pictures |= pictures
        self.committed.append(self.store.rows(select(func.count()).select_from(fault_table))[0][0])


class Stubborn:
    """An appender that fails as told before it works."""

    def __init__(self, appender: Appender, *errors: Exception) -> None:
        self._appender, self._errors = appender, list(errors)

    async def append(self, submission: Submission) -> Receipt:
        if self._errors and submission.loop == "faults":
            raise self._errors.pop(0)
        return await self._appender.append(submission)


@dataclass
class Running:
    """A fault path that runs, and what surrounds it."""

    bus: StandInBus
    offers: Offers
    path: IngestLoop
    task: asyncio.Task[None]
    silences: Silences
    appender: Appender

    def beat(self, host: str) -> None:
        self.bus.say(Subjects(HostId(host)).heartbeat, Heartbeat(HostId(host), "b1", "i1", 0, digest({})))

    def see(self, host: str, *transitions: ResourceTransition) -> None:
        message = Observations(HostId(host), "b1", 10**12, 1, transitions)
        self.bus.say(Subjects(HostId(host)).observations, message)

    def acknowledged(self, host: str) -> int:
        return self.bus.answers(Subjects(HostId(host)).acknowledged)

    def told(self) -> list[str]:
        return [f"{each.transition} {each.fault[:1]}" for each in self.offers.offered]


def seen(resource: str, seq: int, state: ResourceState, action: str | None = None) -> ResourceTransition:
    level = ResourceStatus(
        ResourceId(resource), ResourceKind.SERVICE, Owner("blue"), "ocf:x:y", state, "because", seq, seq
    )
    return ResourceTransition(
        level,
        seq * 10**9,
        None if action is None else Intent(action, "restart", 20.0, "died"),
        before_mono_ns=seq * 10**9,
    )


@asynccontextmanager
async def running(
    store: Store,
    *errors: Exception,
    term_left_s: Callable[[], float] = lambda: math.inf,
    fleet: FleetSettings = FLEET,
    tags: DrillTags = NO_DRILL_TAGS,
    deciders: FaultDeciders | None = None,
    probed: Callable[[], Mapping[HostId, Probed]] = dict,
) -> AsyncIterator[Running]:
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()
    subscription = Subscription("s", Owner("blue"), (Endpoint(1, "http://127.0.0.1/"),), "x" * 16, "k", 0)
    if not store.rows(select(subscription_table.c.name)):
        await appender.append(Submission("test", changes=(insert_subscription(subscription),)))
    subscriptions = Subscriptions(store.readers)
    await subscriptions.reload()
    bus, offers, silences = StandInBus(), Offers(store), Silences(store.readers)
    await silences.reload()
    parts = IngestDependencies(
        appender=Stubborn(appender, *errors),  # type: ignore[arg-type]
        readers=store.readers,
        bus=bus,  # type: ignore[arg-type]
        clock=SystemClock(),
        herald=NoticeBridge(subscriptions, offers, store.readers, silences, tags),  # type: ignore[arg-type]
        deciders=deciders or FaultDeciders(FaultsSettings(clear_after_s=0.1)),
        fleet=fleet,
        epoch=1,
        own_lag_s=lambda: 0.0,
        probed=probed,
        term_left_s=term_left_s,
    )
    path = IngestLoop(parts)
    await path.listen()
    task = asyncio.create_task(path.run())
    try:
        yield Running(bus, offers, path, task, silences, appender)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await appender.close()


async def enrol(here: Running, change: SubscriptionChange) -> None:
    await here.path.record(partial(on_subscription_change, change))


async def join(here: Running, *hosts: str) -> None:
    for host in hosts:
        here.beat(host)
    await until(lambda: set(hosts) <= here.path.world.topology.nodes.keys())


async def test_an_outage_is_committed_then_acknowledged_and_told(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        here.see("n1", seen("web", 1, UP), seen("web", 2, DOWN, "web-1"))
        await until(lambda: here.acknowledged("n1") == 1)
        await until(lambda: here.told() == ["raised f"])
        assert here.offers.committed == [1], "the fault was in its table before anybody was told"
        here.see("n1", seen("web", 3, UP))
        await until(lambda: here.told() == ["raised f", "cleared f"])
        state, outage_ms = store.rows(select(fault_table.c.state, fault_table.c.outage_ms))[0]
        assert (state, outage_ms) == ("cleared", 1000.0)


async def test_a_starting_server_gives_a_host_that_is_back_its_whole_time(store: Store) -> None:
    """Or its guests, of which its node has not spoken yet, would be told as faults of their own."""
    row = {
        "id": "f-1", "kind": "host_down", "severity": "critical", "about": "node/n1",
        "owner": "infrastructure", "reason": "", "state": "clearing", "raised_seq": 1, "trace": "t",
        "raised_ns": 1, "up_ns": 2,
        "cleared_reason": "", "affected": "{}",
    }  # fmt: skip
    with store.engine.begin() as connection:
        connection.execute(insert(fault_table), [row])
    began_ns = SystemClock().mono_ns()
    async with running(store) as here:
        await until(lambda: "node/n1" in here.path.world.faults)
        hold_until_ns = here.path.world.faults["node/n1"].hold_until_ns
    assert hold_until_ns is not None
    assert hold_until_ns - began_ns >= FaultsSettings().host_clear_after_s * 1e9


async def test_what_is_sent_again_is_acknowledged_again_and_told_once(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        for count in (1, 2, 3):
            here.see("n1", seen("web", 1, DOWN))
            await until(lambda n=count: here.acknowledged("n1") == n)  # type: ignore[misc]
        assert here.told() == ["raised f"]


async def test_a_full_store_acknowledges_nothing_and_asks_again(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        here.path._parts.appender._errors.append(StoreFull("no room"))  # type: ignore[attr-defined]
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.bus.answers("to.n1.resync") >= 1)
        assert here.acknowledged("n1") == 0
        assert here.told() == []
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.told() == ["raised f"])
        assert here.acknowledged("n1") == 1


async def test_one_entry_that_the_store_refuses_does_not_take_the_others_with_it(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1", "n2")
        here.see("n1", seen("web", 1, DOWN, "web-1"))
        await until(lambda: here.told() == ["raised f"])
        here.see("n2", seen("api", 1, DOWN, "web-1"))  # an act of that name exists: Conflict
        here.see("n1", seen("db", 2, DOWN, "db-1"))
        await until(lambda: here.told() == ["raised f", "raised f"])
        await until(lambda: here.acknowledged("n1") == 2)
        assert here.acknowledged("n2") == 0


async def test_a_deposed_server_stops(store: Store) -> None:
    async with running(store, Deposed("another server leads")) as here:
        here.beat("n1")
        with pytest.raises(Deposed):
            await asyncio.wait_for(here.task, 60)
        assert here.told() == []


def enrolment(row: Subscription, *, is_new: bool = True) -> SubscriptionChange:
    event = SubscriptionCreated(row.name, row.owner, "")
    draft = NewEvent(event, f"subscription/{row.name}", SystemClock().wall_ns(), "test", f"trace-{row.name}")
    change = insert_subscription(row) if is_new else replace_subscription(row)
    return SubscriptionChange(row.name, row, draft, change)


def listener(name: str, **more: Any) -> Subscription:
    plain = Subscription(name, Owner("blue"), (Endpoint(1, "http://127.0.0.1/"),), "x" * 16, "k", 0)
    return replace(plain, **more)


@pytest.mark.seed("002 SubscribeResponse carries the current state, then changes follow")
async def test_who_subscribes_among_faults_misses_none_and_hears_none_twice(store: Store) -> None:
    """Thirty subscriptions are made while a hundred faults are raised and some cleared, in one loop."""
    async with running(store) as here:
        await join(here, "n1")
        made: list[SubscriptionChange] = []

        async def subscribe(number: int) -> None:
            made.append(enrolment(listener(f"late-{number}")))
            await enrol(here, made[-1])

        tasks = []
        for seq in range(1, 101):
            here.see("n1", seen(f"r{seq}", seq, DOWN))
            if seq % 3 == 0:
                tasks.append(asyncio.create_task(subscribe(seq)))
            if seq % 7 == 0:
                await until(lambda n=seq: here.acknowledged("n1") > n // 14)  # type: ignore[misc]
        await asyncio.gather(*tasks)
        await until(lambda: len([each for each in here.told() if each == "raised f"]) >= 100)
        await until(lambda: len(here.path.world.faults) == 100)
        rows = store.rows(
            select(outbox.c.subscription, outbox.c.fault, outbox.c.queued_seq).where(
                outbox.c.transition == "raised"
            )
        )
        raised = {row[0]: row[1] for row in store.rows(select(fault_table.c.raised_seq, fault_table.c.id))}
    before_and_after = 0
    for each in made:
        own = [(fault, seq) for name, fault, seq in rows if name == each.name]
        assert len(own) == 100 and len({fault for fault, _ in own}) == 100, "every fault once"
        assert each.seq is not None
        at_once = {fault for fault, seq in own if seq <= each.seq}
        assert at_once == {fault.id for fault in each.current}, "the answer, and the notices up to its seq"
        assert all(raised_seq > each.seq for raised_seq, fault in raised.items() if fault not in at_once)
        before_and_after += 0 < len(at_once) < 100
    assert before_and_after, "somebody subscribed in the middle"


async def test_what_a_late_subscriber_was_told_at_once_is_taken_back_when_it_cleared(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        here.see("n1", seen("web", 1, UP), seen("web", 2, DOWN))
        await until(lambda: here.told() == ["raised f"])
        row = listener("late")
        await enrol(here, enrolment(row))
        assert [each.key.split(":")[0] for each in here.offers.offered] == ["s", "late"]
        both = replace(row, endpoints=(*row.endpoints, Endpoint(2, "http://127.0.0.1/2")))
        again = enrolment(both, is_new=False)
        await enrol(here, again)
        assert [each.destination for each in here.offers.offered[2:]] == ["late/2"], "only who missed it"
        assert [each.id for each in again.current] == [here.offers.offered[0].fault]
        here.see("n1", seen("web", 3, UP))
        await until(lambda: here.told().count("cleared f") == 3)
        assert [each.destination for each in here.offers.offered[3:]] == ["late", "late/2", "s"]


async def test_an_extended_subscription_is_told_what_it_missed(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        over = listener("late", expires_ns=SystemClock().wall_ns() - 1)
        first = enrolment(over)
        await enrol(here, first)
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.told() == ["raised f"])
        assert first.current == ()
        longer = enrolment(replace(over, expires_ns=SystemClock().wall_ns() + 10**12), is_new=False)
        await enrol(here, longer)
        assert [each.destination for each in here.offers.offered] == ["s", "late"]


async def test_a_subscription_that_was_not_committed_is_nowhere(store: Store) -> None:
    async with running(store) as here:
        await join(here, "n1")
        here.path._parts.appender._errors.append(StoreFull("no room"))  # type: ignore[attr-defined]
        with pytest.raises(StoreUnavailable):
            await enrol(here, enrolment(listener("late")))
        await until(lambda: here.bus.answers("to.n1.resync") >= 1)
        here.see("n1", seen("web", 1, DOWN))
        await until(lambda: here.told() == ["raised f"])
        assert [each.destination for each in here.offers.offered] == ["s"]

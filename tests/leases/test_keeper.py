"""The service on a store: committed whole, read again, verified, removed when it is over; on both engines."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from lease_parts import HOUR_NS, NOON_NS, held_hosts, hosts_wanted, lease_from, serving, slots_wanted
from sqlalchemy import update

from homeostat.components import catalogue, journal_view
from homeostat.contracts.nouns import HostId
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.database import journal
from homeostat.kernel.errors import BadInput, Conflict, NotFound, StoreUnavailable
from homeostat.kernel.journal import Journal, Receipt, RowChange, Submission
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext, create_lease
from homeostat.leases.journal import RETENTION
from homeostat.leases.keeper import KeeperDependencies, LeaseKeeper
from homeostat.leases.lease_update import LeaseUpdate, ReservationUpdate
from homeostat.leases.model import HostCapacity, Lease, LeaseId
from homeostat.leases.monitoring import HostOutcome, HostVerdict
from homeostat.leases.refusals import LeaseRefusal, RefusalReason
from homeostat.leases.reservable_hosts import record_verdicts
from homeostat.leases.settings import LeasesSettings
from homeostat.leases.store import (
    allocation_table,
    lease_event_table,
    lease_table,
    load,
    reservable_host_table,
    reservation_table,
)
from homeostat.server.replay import compare_with_tables
from homeostat.server.retention import Retention
from homeostat.server.settings import RetentionSettings
from store_parts import Store


def difference(store: Store) -> str:
    """What `journal verify` says."""
    with store.reading.connect() as connection:
        return compare_with_tables(connection, lambda _: None)[1]


def made(lease: Lease | LeaseRefusal) -> Lease:
    assert isinstance(lease, Lease), lease
    return lease


async def test_what_is_booked_is_in_the_tables_and_another_service_finds_it(store: Store) -> None:
    async with serving(store, [1, 2, 3]) as service:
        keeper = service.keeper
        lease = made(await keeper.create(lease_from(1, 2, hosts_wanted(2), slots_wanted(3))))
        first, second = keeper.book.reservations_of(lease.id)
        later = LeaseUpdate(
            name="renamed",
            end_ns=NOON_NS + 3 * HOUR_NS,
            reservations={second.id: ReservationUpdate(amount=2)},
        )
        await keeper.update(lease.id, later, "tester")
        await keeper.describe_host(HostId("h1"), {"rack": "r1"}, "tester")
        await keeper.hold_host(HostId("h2"), "disk", NOON_NS + HOUR_NS, "tester")
        with store.reading.connect() as connection:
            found = load(connection)
        for name in ("leases", "reservations", "allocations", "lease_events", "hosts"):
            assert getattr(found, name) == getattr(keeper.book, name), name
        assert held_hosts(found, first.id) == ["h1", "h2"] and held_hosts(found, second.id) == ["h3", "h3"]
    assert difference(store) == ""


@pytest.mark.parametrize(
    "change",
    [
        update(lease_table).values(end_ns=lease_table.c.end_ns + 1),
        update(lease_table).values(status="TERMINATED"),
        update(lease_table).values(project="beta"),
        update(reservation_table).values(status="active"),
        update(allocation_table).values(host="h2"),
        update(allocation_table).values(host=None),
    ],
    ids=["end", "status", "project", "reservation", "host", "missing"],
)
async def test_verify_finds_a_row_that_was_changed_by_hand(store: Store, change: object) -> None:
    async with serving(store, [1, 2]) as service:
        made(await service.keeper.create(lease_from(1, 2)))
    assert difference(store) == ""
    with store.engine.begin() as connection:
        connection.execute(change)  # type: ignore[call-overload]
    assert "lease" in difference(store)


async def test_what_monitors_say_is_in_the_tables_and_verifies(store: Store) -> None:
    h1, h2, h3 = (HostId(f"h{number}") for number in (1, 2, 3))
    absent, failed = HostOutcome.ABSENT, HostOutcome.FAILED
    async with serving(store, [1, 2, 3]) as service:
        keeper = service.keeper
        await keeper.hold_host(h3, "disk", None, "tester")
        said = [
            HostVerdict("a", h1, failed, "smoke", NOON_NS),
            HostVerdict("b", h1, absent, "not listed", NOON_NS),
            HostVerdict("a", h2, absent, "not listed", NOON_NS),
            HostVerdict("a", h3, failed, "smoke", NOON_NS),
            HostVerdict("dry", h2, failed, "smoke", NOON_NS, is_dry_run=True),
        ]
        await keeper.decide(lambda book, context: record_verdicts(book, said, context))
        well = HostVerdict("a", h1, HostOutcome.RECOVERED, "no smoke", NOON_NS)
        await keeper.decide(lambda book, context: record_verdicts(book, [well], context))
        with store.reading.connect() as connection:
            assert load(connection).hosts == keeper.book.hosts
        states = [(each.reservable, each.failed) for each in keeper.book.hosts.values()]
        assert states == [(False, False), (False, False), (True, False)]
    assert difference(store) == ""
    with store.engine.begin() as connection:
        connection.execute(update(reservable_host_table).values(reports="{}"))
    assert "lease_host" in difference(store)


async def test_a_deleted_lease_leaves_no_row_and_verifies(store: Store) -> None:
    async with serving(store, [1]) as service:
        lease = made(await service.keeper.create(lease_from(1, 2)))
        await service.keeper.delete(lease.id, "tester")
        with pytest.raises(NotFound):
            await service.keeper.delete(lease.id, "tester")
        await service.keeper.remove_host(HostId("h1"), "tester")
    for table in (lease_table, reservation_table, allocation_table, lease_event_table):
        assert store.rows(table.select()) == []
    assert difference(store) == ""


async def test_a_reserved_host_is_not_removed_and_an_unknown_one_not_added(store: Store) -> None:
    async with serving(store, [1]) as service:
        lease = made(await service.keeper.create(lease_from(1, 2)))
        refusal = await service.keeper.remove_host(HostId("h1"), "tester")
        assert refusal is not None and refusal.reason is RefusalReason.HOST_RESERVED
        assert [each.lease.id for each in refusal.conflicts] == [lease.id]
        unknown = await service.keeper.add_host(HostId("h9"), "tester")
        assert isinstance(unknown, LeaseRefusal) and unknown.reason is RefusalReason.HOST_UNKNOWN


async def test_requests_at_the_same_moment_do_not_get_the_same_host(store: Store) -> None:
    async with serving(store, range(1, 6)) as service:
        keeper = service.keeper
        asked = [keeper.create(lease_from(1, 2, hosts_wanted(), name=f"l{n}")) for n in range(8)]
        results = await asyncio.gather(*asked)
        hosts = [each.host for each in keeper.book.allocations.values()]
    assert len(hosts) == len(set(hosts)) == 5
    assert sum(isinstance(each, LeaseRefusal) for each in results) == 3


async def test_only_what_may_be_reserved_is(store: Store) -> None:
    settings = LeasesSettings(plugins=("physical:host",))
    async with serving(store, [1], settings) as service:
        with pytest.raises(BadInput, match="virtual:instance"):
            await service.keeper.create(lease_from(1, 2, slots_wanted(1)))


async def test_requests_that_wait_for_the_disk_share_a_commit(store: Store) -> None:
    async with serving(store, range(1, 31)) as service:
        counting = CountingAppender(service.appender)
        parts = replace(service.parts, appender=counting)
        keeper = LeaseKeeper(parts)
        asked = [keeper.create(lease_from(1, 2, hosts_wanted(), name=f"l{n}")) for n in range(30)]
        results = await asyncio.gather(*asked)
        assert all(isinstance(each, Lease) for each in results) and counting.commits <= 3
        hosts = [each.host for each in keeper.book.allocations.values()]
        assert len(set(hosts)) == 30
        causes = store.rows(journal.select().where(journal.c.kind == "ReservationPlaced"))
        assert len({row.cause for row in causes}) == 30
    assert difference(store) == ""


async def test_a_request_that_the_database_refuses_takes_no_other_with_it(store: Store) -> None:
    async with serving(store, [1, 2, 3]) as service:
        keeper = service.keeper
        twice = lease_from(1, 2, name="good")

        def same_id(book: LeaseBook, context: LeaseContext) -> LeaseChange | LeaseRefusal:
            """A lease under an id that is taken in the table, which this book does not know of."""
            return create_lease(book, lease_from(5, 6), replace(context, new_id=lambda: "taken"))

        def unknown(book: LeaseBook, context: LeaseContext) -> LeaseChange | LeaseRefusal:
            change = same_id(book, context)
            assert isinstance(change, LeaseChange)
            return replace(change, allocations=(*change.allocations, change.allocations[0]))

        outcomes = await asyncio.gather(
            keeper.create(twice), keeper.decide(unknown), keeper.create(twice), return_exceptions=True
        )
        assert [type(each) for each in outcomes] == [Lease, Conflict, Lease]
        assert len(keeper.book.leases) == 2
    assert difference(store) == ""


async def test_what_was_removed_in_the_same_commit_is_not_found(store: Store) -> None:
    """The change was made, and then the lease went with the next decision of that commit."""
    async with serving(store, [1, 2]) as service:
        keeper = service.keeper
        first, second = [made(await keeper.create(lease_from(1, 2, name=name))) for name in ("a", "b")]
        found = await asyncio.gather(
            keeper.delete(second.id, "first in line"),
            keeper.update(first.id, LeaseUpdate(name="new"), "tester"),
            keeper.delete(first.id, "tester"),
            keeper.hold_host(HostId("h1"), "disks", None, "tester"),
            keeper.remove_host(HostId("h1"), "tester"),
            return_exceptions=True,
        )
        assert [type(each) for each in found] == [type(None), NotFound, type(None), NotFound, type(None)]
    assert difference(store) == ""


async def test_what_cannot_be_written_is_no_success_and_leaves_the_book_as_it_was(store: Store) -> None:
    async with serving(store, [1, 2]) as service:
        keeper = service.keeper

        def broken(book: LeaseBook, context: LeaseContext) -> LeaseChange | LeaseRefusal:
            change = create_lease(book, lease_from(1, 2, name="bad"), context)
            assert isinstance(change, LeaseChange)
            return replace(change, reservations=())  # its allocations belong to nothing

        found = await asyncio.gather(
            keeper.create(lease_from(5, 6, name="first in line")),
            keeper.create(lease_from(1, 2, name="a")),
            keeper.decide(broken),
            keeper.create(lease_from(1, 2, name="b")),
            return_exceptions=True,
        )
        assert [type(each) for each in found] == [Lease, Lease, KeyError, Lease]
        assert sorted(each.name for each in keeper.book.leases.values()) == ["a", "b", "first in line"]
    assert difference(store) == ""


class CountingAppender:
    """Counts commits."""

    def __init__(self, appender: object) -> None:
        self._appender, self.commits = appender, 0

    async def append(self, submission: Submission) -> Receipt:
        self.commits += 1
        receipt: Receipt = await self._appender.append(submission)  # type: ignore[attr-defined]
        return receipt


class LosingAppender:
    """Commits, and then the answer is lost, once."""

    def __init__(self, appender: object) -> None:
        self._appender, self.loses = appender, True

    async def append(self, submission: Submission) -> Receipt:
        receipt: Receipt = await self._appender.append(submission)  # type: ignore[attr-defined]
        if self.loses and submission.events:
            self.loses = False
            raise StoreUnavailable("the answer was lost")
        return receipt


async def test_a_lost_answer_is_looked_up_before_the_next_booking(store: Store) -> None:
    async with serving(store, [1]) as service:
        numbers = iter(range(1000, 2000))
        parts = KeeperDependencies(
            LosingAppender(service.appender),
            store.readers,
            service.clock,
            lambda: f"again-{next(numbers)}",
            LeasesSettings(),
            {HostId("h1"): HostCapacity()}.get,
        )
        keeper = LeaseKeeper(parts)
        with pytest.raises(StoreUnavailable):
            await keeper.create(lease_from(1, 2))
        refusal = await keeper.create(lease_from(1, 2))
        assert isinstance(refusal, LeaseRefusal) and refusal.reason is RefusalReason.NOT_ENOUGH_HOSTS
        assert len(keeper.book.leases) == 1


async def test_a_project_reads_what_happens_to_its_leases_and_nothing_of_hosts(store: Store) -> None:
    async with serving(store, [1]) as service:
        await service.keeper.create(lease_from(1, 2))
        found = await Journal(store.readers, catalogue()).read(0)  # type: ignore[arg-type]
        view = journal_view()
        with store.reading.connect() as connection:
            owners = {
                seq: projects for lookup in view.owners for seq, projects in lookup(connection, found).items()
            }
    kinds = {each.kind for each in found if owners.get(int(each.seq)) == frozenset({"alpha"})}
    assert kinds == {"LeaseCreated", "ReservationPlaced"}
    assert {each.kind for each in found} - kinds == {"ReservableHostAdded", "HostCapacityNoted"}


async def test_retention_removes_an_ended_lease_and_nothing_behind_an_open_one(store: Store) -> None:
    async with serving(store, [1, 2, 3]) as service:
        ended, opened, behind = [
            made(await service.keeper.create(lease_from(n, n + 1, name=name)))
            for n, name in enumerate(("ended", "open", "behind"), 1)
        ]
        over = [LeaseId(each.id) for each in (ended, behind)]
        mark = update(lease_table).where(lease_table.c.id.in_(over)).values(ended_ns=NOON_NS)
        await service.appender.append(Submission("test", changes=(RowChange(mark),)))
        settings = RetentionSettings(days=0.001)
        retention = Retention(service.appender, store.readers, SystemClock(), settings, (RETENTION,))
        await retention.prune()
        assert {row.id for row in store.rows(lease_table.select())} == {opened.id, behind.id}
        for table in (reservation_table, allocation_table, lease_event_table):
            assert {row.lease for row in store.rows(table.select())} == {opened.id, behind.id}
        await service.keeper.reload()

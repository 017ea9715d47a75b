"""Reserved hosts take guests of the lease's project only, within its window; who is left out hears why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from test_placement import N1, N2, N3, dead, guest, node, site
from test_placing import Written

from homeostat.components import catalogue
from homeostat.contracts.events.leases import Place, ReservationPlaced, ReservationReleased
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Candidate
from homeostat.fleet.model import Topology
from homeostat.kernel.appender import Appender, AppenderSettings
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Journal, NewEvent, Submission
from homeostat.recovery.host_reservations import (
    PAGE,
    JournalReservations,
    ReservationCalendar,
    ReservedHosts,
)
from homeostat.recovery.placement import CandidateHosts, place_elsewhere, place_first, place_given_up
from homeostat.recovery.placement_loop import PlacementDependencies, PlacementLoop
from real_parts import eventually
from store_parts import Store

BLUE, GREEN = Owner("blue"), Owner("green")
END_NS = 1_800_000_000 * 10**9
END = "2027-01-15T08:00:00.000000Z"


def placed(
    name: str, project: Owner, *hosts: HostId | None, kind: str = "physical:host"
) -> ReservationPlaced:
    places = tuple(Place(f"{name}-{number}", number, host) for number, host in enumerate(hosts))
    return ReservationPlaced(name, f"lease-{name}", project, kind, 100, END_NS, places)


def reserved(*events: object, at_ns: int = 100) -> ReservedHosts:
    calendar = ReservationCalendar()
    for event in events:
        calendar.take(event)
    return calendar.active(at_ns)


def places(topology: Topology, *events: object) -> dict[str, str]:
    hosts = CandidateHosts(topology, (), reserved(*events))
    return {each.resource: each.to for each in place_elsewhere(hosts, N2).assigned}


@pytest.mark.parametrize(
    ("at_ns", "is_reserved"), [(99, False), (100, True), (END_NS - 1, True), (END_NS, False)]
)
def test_a_host_is_reserved_from_the_start_of_the_window_until_its_end(at_ns: int, is_reserved: bool) -> None:
    assert bool(reserved(placed("r", BLUE, N1), at_ns=at_ns)) is is_reserved


def test_the_last_event_of_a_reservation_counts_and_only_whole_hosts_are_kept() -> None:
    moved = reserved(placed("r", BLUE, N1, None), placed("r", BLUE, N3))
    assert list(moved) == [N3]
    assert not reserved(placed("r", BLUE, N1), ReservationReleased("r", "lease-r", BLUE))
    assert not reserved(placed("r", BLUE, N1, kind="virtual:instance"))


@pytest.mark.seed("003 a reserved host takes only guests of the lease's project")
def test_a_guest_of_another_project_does_not_start_on_a_reserved_host() -> None:
    topology = dead(site({"a": N2, "b": N2}), N2)
    assert places(topology) == {"a": N1, "b": N3}
    assert places(topology, placed("r", GREEN, N1)) == {"a": N3, "b": N3}
    assert places(topology, placed("r", BLUE, N1)) == {"a": N1, "b": N3}
    assert places(topology, placed("r", GREEN, N1), placed("s", BLUE, N1)) == {"a": N1, "b": N3}


def test_first_and_given_up_guests_keep_off_reserved_hosts_too_and_what_may_run_stays() -> None:
    kept = reserved(placed("r", GREEN, N1))
    topology = Topology()
    topology.adopt(node(host) for host in (N1, N3))
    for host in (N1, N3):
        topology.hear_offers(host, [Candidate(ResourceId("a"), ResourceKind.GUEST, BLUE, "ocf:x:y", N1)])
    assert not place_first(CandidateHosts(topology, (), kept), ()).assigned, "its home may be free soon"
    impatient = place_first(CandidateHosts(topology, (), kept), {ResourceId("a")})
    assert [each.to for each in impatient.assigned] == [N3]
    topology.adopt(resources=[guest("a", N1, generation=0)])
    stays = place_first(CandidateHosts(topology, (), kept), ())
    assert [each.to for each in stays.assigned] == [N1], "it may run there"
    given_up = site({"b": N2})
    given_up.adopt(resources=[guest("b", N2, state=ResourceState.STOPPED)])
    given_up.hear_offers(N2, [])
    assert [each.to for each in place_given_up(CandidateHosts(given_up, (), kept)).assigned] == [N3]


def test_who_is_stranded_by_leases_hears_of_which_hosts_and_until_when_and_not_whose_they_are() -> None:
    topology = dead(site({"a": N2}), N2)

    def why(*events: object) -> tuple[str, str]:
        (stranded,) = place_elsewhere(CandidateHosts(topology, (), reserved(*events)), N2).stranded
        return stranded.reason, stranded.detail

    assert why(placed("r", GREEN, N1, N3)) == (
        "reserved",
        f"hosts n1, n3 are reserved for another project until {END}",
    )
    red = replace(placed("s", Owner("red"), N3), end_ns=END_NS + 3600 * 10**9)
    assert why(placed("r", GREEN, N1), red)[1] == (
        f"host n1 is reserved for another project until {END}; "
        "host n3 is reserved for another project until 2027-01-15T09:00:00.000000Z"
    )
    topology.adopt([replace(topology.nodes[N1], held="disks"), replace(topology.nodes[N3], held="disks")])
    assert why(placed("r", GREEN, N1, N3))[0] == "no_host", "without the lease it would start nowhere, too"


@dataclass
class Reserving:
    """Reservations that a test changes."""

    calendar: ReservationCalendar
    read: int = 0

    def active(self, at_ns: int) -> ReservedHosts:
        return self.calendar.active(at_ns)

    async def catch_up(self) -> None:
        self.read += 1


@asynccontextmanager
async def placing(written: Written, reserving: Reserving) -> AsyncIterator[PlacementLoop]:
    parts = PlacementDependencies(
        lambda: written.topology,
        lambda: (),
        written.ask,
        written.record,
        written.refuse,
        7,
        SystemClock(),
        reservations=reserving,
    )
    loop = PlacementLoop(parts)
    running = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_guest_that_a_lease_strands_is_named_with_the_reason_and_starts_when_the_lease_is_gone() -> (
    None
):
    reserving = Reserving(ReservationCalendar())
    reserving.calendar.take(placed("r", GREEN, N1, N3))
    written = Written(dead(site({"a": N2}), N2))
    async with placing(written, reserving) as loop:
        said = {ResourceId("a"): f"hosts n1, n3 are reserved for another project until {END}"}
        await eventually(lambda: loop.stranded() == said)
        await eventually(lambda: written.placements)
        assert [each.reason for each in written.placements[0].stranded] == ["reserved"]
        assert loop.foretell(N2).stranded == written.placements[0].stranded
        reserving.calendar.take(ReservationReleased("r", "lease-r", GREEN))
        await eventually(lambda: len(written.placements) == 2)
        assert [each.to for each in written.placements[1].assigned] == [N1]
        await eventually(lambda: not loop.stranded())
    assert reserving.read


async def test_the_journal_alone_tells_what_is_reserved_also_to_a_server_that_starts_later(
    store: Store,
) -> None:
    journal = Journal(store.readers, catalogue())
    early = JournalReservations(journal)
    appender = Appender(
        store.engine, catalogue(), epoch=None, settings=AppenderSettings(), clock=SystemClock()
    )
    appender.start()

    async def publish(*events: object) -> None:
        drafts = tuple(NewEvent(event, "lease/x", 1, "leases", "t") for event in events)
        await appender.append(Submission("leases", drafts))

    try:
        await early.catch_up()
        await publish(*(placed(f"r{number}", GREEN, N1) for number in range(PAGE + 1)), placed("s", BLUE, N3))
        await publish(*(ReservationReleased(f"r{number}", "l", GREEN) for number in range(PAGE)))
        late = JournalReservations(journal)
        for each in (early, late):
            await each.catch_up()
            active = each.active(100)
            assert {host: [one.project for one in reserved] for host, reserved in active.items()} == {
                N1: [GREEN],
                N3: [BLUE],
            }
        await publish(ReservationReleased(f"r{PAGE}", "l", GREEN))
        await early.catch_up()
        assert list(early.active(100)) == [N3]
    finally:
        await appender.close()

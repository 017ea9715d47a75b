"""Only the server gives generations, and says which projects a node may name: whoever has the password of a
node takes no guest of a healthy host with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from entry_parts import PlayedEntry
from test_guests import BLUE, DOWN, N1, N2, N3, OFFER, STOPPED, UP, G, Site, level

from homeostat.contracts.events.fleet import GuestClaimConfirmed, NodeClaimRefused
from homeostat.contracts.events.resources import GuestFound
from homeostat.contracts.nouns import FaultKind, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Candidate,
    Goodbye,
    Observations,
    ResourceStatus,
    ResourceTransition,
    Snapshot,
    assigned_digest,
)
from homeostat.faults.node_claims import CLAIMS_MAX, on_claim_confirmed
from homeostat.fleet.settings import FleetSettings, HostSettings, NodeOwners
from homeostat.kernel.errors import NotFound
from set_clock import node_mono

GREEN = Owner("green")


def told(entry: PlayedEntry) -> list[tuple[FaultKind, str, str]]:
    return [(each.fault.kind, each.fault.about, each.transition) for each in entry.tellings]


def picture(
    site: Site,
    host: str,
    *known: ResourceStatus,
    offers: tuple[Candidate, ...] = (OFFER,),
    entry: PlayedEntry | None = None,
) -> PlayedEntry:
    entry = entry or site.entry()
    entry.levels(Snapshot(host, f"b-{host}", "i1", site.seqs[host], known, 0, offers))  # type: ignore[arg-type,index]
    return site.settled(entry)


@pytest.mark.parametrize("how", ["observation", "picture", "one of it, then the other"])
def test_a_later_generation_takes_no_guest_of_a_healthy_host(how: str) -> None:
    site = Site()
    before = site.row
    entry = picture(site, N3, level(UP, 0, 2)) if how == "picture" else site.report(N3, UP, 2)
    assert site.row == before
    assert next(type(draft.event) for draft in entry.events) is NodeClaimRefused
    ((kind, about, transition),) = told(entry)
    assert (kind, about, transition) == (FaultKind.CLAIM_REFUSED, "assignment/n3", "raised")
    fault = site.world.faults[about]
    assert "n3 claims g under generation 2" in fault.reason and "is on n1 under generation 1" in fault.reason
    assert (fault.owner, fault.host) == ("infrastructure", N3)
    if how.startswith("one"):
        again = picture(site, N3, level(UP, 0, 2))
        assert not again.events and again.refused, "it is known"
    assert site.world.topology.assignment(N1) == {G: 1}
    assert site.world.topology.assignment(N3) == {}


@pytest.mark.parametrize("state", list(ResourceState))
def test_whatever_the_guest_does_on_its_host_only_a_stop_there_lets_another_one_claim_it(
    state: ResourceState,
) -> None:
    site = Site()
    site.report(N1, state, 1)
    site.report(N3, UP, 2)
    assert site.row.host == (N3 if state is STOPPED else N1)


def test_a_guest_that_was_fixed_to_its_host_is_not_taken_by_a_first_generation() -> None:
    site = Site()
    nodes = site.world.topology
    fixed = ResourceStatus(ResourceId("web"), ResourceKind.SERVICE, BLUE, "ocf:x:y", UP, "ok", 1, 1)
    entry = site.entry()
    site.seqs[N1] = 2
    nodes.nodes[N1] = nodes.nodes[N1].__class__(N1, "b-n1", "i1", 2, nodes.nodes[N1].agent, 0)
    entry.levels(Snapshot(N1, "b-n1", "i1", 2, (level(UP, 1, 1), fixed), 0, (OFFER,)))
    site.settled(entry)
    web = Candidate(ResourceId("web"), ResourceKind.SERVICE, BLUE, "ocf:x:y", "n3")
    claim = ResourceStatus(
        ResourceId("web"), ResourceKind.SERVICE, BLUE, "ocf:x:y", UP, "mine", 1, 0, None, 1
    )
    picture(site, N3, claim, offers=(OFFER, web))
    assert nodes.resources[ResourceId("web")].host == N1


def test_a_node_that_dies_after_it_has_spoken_loses_no_guest_to_a_claim() -> None:
    """Its guests run on: only the receipt that its host is off lets them go elsewhere."""
    site = Site()
    site.silence(N1)
    assert site.report(N3, UP, 2).tellings
    site.die(N1, fenced=False)
    assert site.row.host == N1
    picture(site, N3, level(UP, 1, 2))
    assert site.row.host == N1


def test_a_node_that_was_stopped_in_order_is_no_silent_one() -> None:
    site = Site()
    site.nobody_has_spoken()
    entry = site.entry()
    entry.goodbye(Goodbye(N1, "i1"))
    site.settled(entry)
    assert site.report(N3, UP, 2).tellings
    assert site.row.host == N1


def test_a_guest_that_stopped_with_its_node_process_is_no_guest_that_its_host_gave_up() -> None:
    """An orderly restart of a node with `on_stop: stop` ends its guests, and starts them again."""
    site = Site()
    site.report(N1, STOPPED, 1)
    entry = site.entry()
    entry.goodbye(Goodbye(N1, "i1"))
    site.settled(entry)
    before = site.row
    assert told(site.report(N3, UP, 2)) == [(FaultKind.CLAIM_REFUSED, "assignment/n3", "raised")]
    assert site.row == before and before.host == N1


def test_a_claim_waits_for_the_word_of_the_other_host() -> None:
    site = Site()
    site.nobody_has_spoken()
    entry = site.report(N2, UP, 2)
    assert (site.row.host, entry.tellings) == (N1, []), "nobody has asked n1 yet"
    entry = site.levels(N1, level(UP, 1, 1))
    assert told(entry) == [(FaultKind.CLAIM_REFUSED, "assignment/n2", "raised")]
    assert site.row.host == N1


def test_a_claim_counts_when_the_other_host_says_that_the_guest_stopped_there() -> None:
    site = Site()
    site.nobody_has_spoken()
    site.report(N2, UP, 2)
    site.report(N1, STOPPED, 1)
    entry = site.levels(N1, level(STOPPED, 2, 1))
    assert [type(each.event) for each in entry.events if type(each.event) is GuestFound]
    assert (site.row.host, site.row.generation, site.row.state) == (N2, 2, UP)
    assert not entry.tellings and N2 in entry.assign


def test_a_claim_that_waited_counts_when_the_other_host_is_found_silent() -> None:
    site = Site()
    site.nobody_has_spoken()
    site.report(N2, UP, 2)
    site.silence(N1)
    assert (site.row.host, site.row.generation) == (N2, 2)


@pytest.mark.parametrize("by", ["a picture without it", "a heartbeat"])
def test_the_fault_ends_when_the_node_does_not_say_it_any_more(by: str) -> None:
    site = Site()
    site.report(N3, UP, 2)
    site.tick()
    assert "assignment/n3" in site.world.faults
    if by == "a heartbeat":
        assert not site.tick().tellings
        site.beat(N3, assigned=assigned_digest({}))
    else:
        picture(site, N3)
    assert told(site.tick()) == [(FaultKind.CLAIM_REFUSED, "assignment/n3", "cleared")]


def test_the_fault_of_a_node_that_goes_on_claiming_stays_after_a_restart_of_the_server() -> None:
    site = Site()
    site.report(N3, UP, 2)
    site.world.claims.clear()  # another server reads the tables
    site.nobody_has_spoken()
    site.report(N3, DOWN, 0)  # refused as well; says nothing of the guest under its generation
    assert not site.tick().tellings
    site.levels(N1, level(UP, 1, 1))
    assert not told(picture(site, N3, level(UP, 1, 2))), "the same fault"
    assert not site.tick().tellings


def test_a_person_confirms_after_a_restore() -> None:
    site = Site()
    site.report(N3, UP, 2)
    entry = site.entry()
    entry.take(lambda state, now: on_claim_confirmed(state, N3, ("g", "admin"), now))
    site.settled(entry)
    events = [draft.event for draft in entry.events]
    assert GuestClaimConfirmed(N3, G, 2, "admin") in events
    assert (site.row.host, site.row.generation) == (N3, 2)
    assert entry.assign == {N1, N3}
    picture(site, N3, level(UP, 1, 2))
    assert told(site.tick()) == [(FaultKind.CLAIM_REFUSED, "assignment/n3", "cleared")]


@pytest.mark.parametrize("resource", ["g", "h"])
def test_what_nobody_claims_cannot_be_confirmed(resource: str) -> None:
    site = Site()
    with pytest.raises(NotFound, match="does not claim"):
        site.entry().take(lambda state, now: on_claim_confirmed(state, N3, (resource, "admin"), now))


def invented(owner: Owner) -> ResourceStatus:
    return ResourceStatus(ResourceId("bait"), ResourceKind.SERVICE, owner, "ocf:x:y", UP, "ok", 1, 0)


@pytest.mark.parametrize(("owner", "taken"), [(BLUE, True), (Owner("infrastructure"), True), (GREEN, False)])
def test_a_node_names_only_the_projects_that_the_server_lets_it_name(owner: Owner, taken: bool) -> None:
    site = Site(NodeOwners(by_host={N3: frozenset({BLUE})}))
    entry = picture(site, N3, invented(owner))
    assert (ResourceId("bait") in site.world.topology.resources) is taken
    assert bool(told(entry)) is not taken
    if not taken:
        assert "of project green" in site.world.faults["assignment/n3"].reason
        picture(site, N3)
        assert told(site.tick()) == [(FaultKind.CLAIM_REFUSED, "assignment/n3", "cleared")]


def test_a_node_offers_only_guests_of_projects_that_it_may_name() -> None:
    site = Site(NodeOwners(anywhere=frozenset({BLUE})))
    bait = Candidate(ResourceId("bait"), ResourceKind.GUEST, GREEN, "ocf:x:y", "n3")
    entry = picture(site, N3, offers=(OFFER, bait))
    assert set(site.world.topology.offers[N3]) == {G}
    assert told(entry) == [(FaultKind.CLAIM_REFUSED, "assignment/n3", "raised")]
    assert not told(picture(site, N3, offers=(OFFER, bait)))


def test_whose_resources_a_node_may_name_is_a_setting_of_its_host_or_of_all() -> None:
    def owners(**fleet: object) -> NodeOwners:
        return NodeOwners.of(FleetSettings.model_validate(fleet))

    host = HostSettings(host="n1", address="a", owners=["blue"])
    assert owners().may_name(N1, GREEN), "not set: as before there was this setting"
    assert not owners(hosts=[host]).may_name(N1, GREEN)
    assert owners(hosts=[host]).may_name(N2, GREEN)
    assert not owners(owners=["blue"]).may_name(N2, GREEN)
    assert owners(owners=["green"], hosts=[host]).may_name(N1, BLUE)
    assert not owners(owners=[]).may_name(N1, BLUE)


def refusals(entry: PlayedEntry) -> list[NodeClaimRefused]:
    return [draft.event for draft in entry.events if isinstance(draft.event, NodeClaimRefused)]


def observed(site: Site, entry: PlayedEntry, *levels: ResourceStatus) -> PlayedEntry:
    """The node of n3 reports these, numbered."""
    first = site.seqs[N3] + 1
    site.seqs[N3] += len(levels)
    seen = tuple(
        ResourceTransition(replace(each, seq=first + number), node_mono(first + number))
        for number, each in enumerate(levels)
    )
    entry.observations(Observations(N3, "b-n3", node_mono(10**6), 0, seen), entry.mono_ns)
    return site.settled(entry)


def foreign(number: int) -> ResourceStatus:
    return ResourceStatus(ResourceId(f"x{number}"), ResourceKind.SERVICE, GREEN, "ocf:x:y", UP, "ok", 1, 1)


def test_a_node_that_claims_ever_more_fills_neither_the_memory_nor_the_journal() -> None:
    site = Site(NodeOwners(frozenset({BLUE})))
    first = observed(site, site.entry(), *map(foreign, range(CLAIMS_MAX + 500)))
    assert len(refusals(first)) == 1, "at most one a second"
    assert told(first) == [(FaultKind.CLAIM_REFUSED, "assignment/n3", "raised")]
    assert len(site.world.claims[N3]) == CLAIMS_MAX + 1
    (others,) = refusals(observed(site, site.entry(), foreign(10**6)))
    assert others.resource == "*" and "more than 1000" in others.reason
    assert not refusals(observed(site, site.entry(), foreign(10**6 + 1))), "it is known"
    (again,) = refusals(observed(site, site.entry(), foreign(7)))
    assert again.resource == "x7", "what found no place in its second is written down when it is said again"


def test_a_node_that_changes_its_claim_all_the_time_is_written_down_once_a_second() -> None:
    site = Site()
    written = 0
    for number in range(30):
        entry = site.entry_after(0.1)
        written += len(refusals(observed(site, entry, level(UP, 0, 2 + number % 2))))
        written += len(refusals(picture(site, N3, entry=site.entry_after(0.0))))
    assert written == 3
    assert "assignment/n3" in site.world.faults

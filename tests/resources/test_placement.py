"""Where guests go: only to hosts that are ready, evenly, and the same every time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Candidate
from homeostat.fleet.model import AgentState, Node, Resource, Topology
from homeostat.recovery.placement import (
    CandidateHosts,
    StrandedReason,
    place_elsewhere,
    place_first,
    place_given_up,
)

HOSTS = [HostId(f"n{number}") for number in range(1, 6)]
N1, N2, N3, *_ = HOSTS
BLUE = Owner("blue")


def node(host: HostId) -> Node:
    return Node(host, "b", "i", 0, AgentState.PRESENT, 0)


def offer(name: str, home: str = "") -> Candidate:
    return Candidate(ResourceId(name), ResourceKind.GUEST, BLUE, "ocf:x:y", home)


def guest(name: str, host: HostId, generation: int = 1, state: ResourceState = ResourceState.UP) -> Resource:
    return Resource(
        ResourceId(name), host, ResourceKind.GUEST, BLUE, "ocf:x:y", state, "", 0, 1, None, generation
    )


def site(guests: dict[str, HostId], hosts: list[HostId] = HOSTS[:3]) -> Topology:
    """Every host offers every guest."""
    topology = Topology()
    topology.adopt((node(host) for host in hosts), (guest(name, host) for name, host in guests.items()))
    for host in hosts:
        topology.hear_offers(host, [offer(name) for name in guests])
    return topology


def dead(topology: Topology, host: HostId) -> Topology:
    topology.adopt([replace(topology.nodes[host], agent=AgentState.LOST, down_ns=1, fenced="off")])
    return topology


def places(topology: Topology, host: HostId) -> dict[str, str]:
    return {each.resource: each.to for each in place_elsewhere(CandidateHosts(topology), host).assigned}


def test_the_guests_of_a_dead_host_are_spread_and_what_lives_stays() -> None:
    topology = dead(site({"a": N1, "b": N2, "c": N2, "d": N2, "e": N3}), N2)
    assert places(topology, N2) == {"b": N1, "c": N3, "d": N1}
    found = place_elsewhere(CandidateHosts(topology), N2).assigned[0]
    assert (found.generation, found.from_host) == (2, N2)


def test_what_is_foretold_is_what_is_done() -> None:
    topology = site({"a": N1, "b": N2, "c": N2, "e": N3})
    said = places(topology, N2)
    assert said == places(dead(topology, N2), N2)


def test_fixed_resources_go_nowhere() -> None:
    topology = site({"a": N2})
    topology.adopt(resources=[guest("web", N2, generation=0)])
    assert set(places(topology, N2)) == {"a"}


@pytest.mark.parametrize(
    "change",
    [
        {"down_ns": 1},
        {"held": "disks"},
        {"fenced": "off"},
        {"agent": AgentState.LOST},
        {"agent": AgentState.STOPPED},
    ],
)
def test_a_host_that_is_not_ready_gets_nothing(change: dict[str, object]) -> None:
    topology = dead(site({"a": N2, "x": N3}), N2)
    topology.adopt([replace(topology.nodes[N1], **change)])  # type: ignore[arg-type]
    assert places(topology, N2) == {"a": N3}
    topology.adopt([replace(topology.nodes[N3], **change)])  # type: ignore[arg-type]
    found = place_elsewhere(CandidateHosts(topology), N2)
    assert not found.assigned
    assert [(each.resource, each.reason) for each in found.stranded] == [("a", "no_host")]


def test_a_host_that_nothing_is_known_of_gets_nothing() -> None:
    topology = dead(site({"a": N2}), N2)
    doubted = place_elsewhere(CandidateHosts(topology, {N1}), N2)
    assert [each.to for each in doubted.assigned] == [N3]
    del topology.offers[N1], topology.offers[N3]
    assert [each.detail for each in place_elsewhere(CandidateHosts(topology), N2).stranded] == [
        StrandedReason.NO_OFFER.value
    ]


def test_a_guest_goes_home_first_and_elsewhere_when_that_takes_too_long() -> None:
    topology = site({})
    topology.offers = {host: {ResourceId("a"): offer("a", "n2")} for host in (N1, N3)}
    assert not place_first(CandidateHosts(topology), ()).assigned, "its home has not been heard yet"
    assert [each.to for each in place_first(CandidateHosts(topology), {ResourceId("a")}).assigned] == [N1]
    topology.offers[N2] = {ResourceId("a"): offer("a", "n2")}
    assert [(each.to, each.generation) for each in place_first(CandidateHosts(topology), ()).assigned] == [
        (N2, 1)
    ]


def test_one_without_a_home_goes_where_there_is_most_room() -> None:
    topology = site({"a": N1, "b": N2})
    for offers in topology.offers.values():
        offers[ResourceId("c")] = offer("c")
    assert [each.to for each in place_first(CandidateHosts(topology), ()).assigned] == [N3]


def test_one_that_was_fixed_to_a_host_stays_there_and_is_never_doubled() -> None:
    topology = site({"a": N1})
    topology.adopt(resources=[guest("a", N3, generation=0)])
    assert [each.to for each in place_first(CandidateHosts(topology), ()).assigned] == [N3]
    topology.adopt([replace(topology.nodes[N3], agent=AgentState.LOST)])
    assert not place_first(CandidateHosts(topology), {ResourceId("a")}).assigned


@pytest.mark.parametrize("state", list(ResourceState))
def test_what_a_living_host_cannot_run_any_more_goes_elsewhere_when_it_stopped(state: ResourceState) -> None:
    topology = site({"a": N1})
    topology.adopt(resources=[guest("a", N1, 3, state)])
    assert not place_given_up(CandidateHosts(topology)).assigned
    topology.hear_offers(N1, [])
    found = [
        (each.to, each.generation, each.from_host)
        for each in place_given_up(CandidateHosts(topology)).assigned
    ]
    assert found == ([(N2, 4, N1)] if state is ResourceState.STOPPED else [])


def test_what_stopped_on_a_host_that_died_since_waits_for_its_receipt() -> None:
    """Its host said that it stopped and gave it up; what runs there by now nobody has seen."""
    topology = site({"a": N1})
    topology.adopt(resources=[guest("a", N1, 3, ResourceState.STOPPED)])
    topology.hear_offers(N1, [])
    topology.adopt([replace(topology.nodes[N1], agent=AgentState.LOST, down_ns=1)])
    assert not topology.is_given_back(topology.resources[ResourceId("a")])
    assert not place_given_up(CandidateHosts(topology)).assigned


def test_guests_that_were_given_up_together_are_spread() -> None:
    names = ["a", "b", "c", "d"]
    topology = site(dict.fromkeys(names, N1))
    topology.adopt(resources=[guest(name, N1, 3, ResourceState.STOPPED) for name in names])
    topology.hear_offers(N1, [])
    found = place_given_up(CandidateHosts(topology)).assigned
    assert [each.to for each in found] == [N2, N3, N2, N3]


@given(st.permutations(HOSTS[:3]))
def test_of_hosts_with_as_many_guests_the_first_by_name_is_taken(heard: list[HostId]) -> None:
    """Whoever spoke first: the same fleet must not be decided about in two ways."""
    topology = site({}, heard)
    topology.adopt([node(HOSTS[3])], [guest("a", HOSTS[3])])
    for host in heard:
        topology.hear_offers(host, [offer("a")])
    assert places(dead(topology, HOSTS[3]), HOSTS[3]) == {"a": N1}


def test_a_fixed_guest_that_may_still_run_is_not_assigned_elsewhere() -> None:
    topology = site({"a": N1})
    topology.hear_offers(N1, [])
    topology.adopt(resources=[guest("a", N1, 0, ResourceState.UNKNOWN)])
    assert not place_first(CandidateHosts(topology), {ResourceId("a")}).assigned
    topology.adopt(resources=[guest("a", N1, 0, ResourceState.STOPPED)])
    assert [each.to for each in place_first(CandidateHosts(topology), {ResourceId("a")}).assigned] == [N2]


def test_a_large_host_is_emptied_in_several_decisions() -> None:
    topology = dead(site({f"g{number}": N2 for number in range(7)}), N2)
    assert len(place_elsewhere(CandidateHosts(topology), N2, 3).assigned) == 3
    assert len(place_elsewhere(CandidateHosts(topology), N2).assigned) == 7


@given(
    st.dictionaries(st.sampled_from([f"g{k}" for k in range(20)]), st.sampled_from(HOSTS), max_size=20),
    st.sets(st.sampled_from(HOSTS[1:]), max_size=3),
)
def test_moves_are_complete_even_and_only_to_the_living(guests: dict[str, HostId], lost: set[HostId]) -> None:
    topology = site(guests, HOSTS)
    for host in lost:
        dead(topology, host)
    dead(topology, N1)
    found = place_elsewhere(CandidateHosts(topology), N1)
    mine = {name for name, host in guests.items() if host == N1}
    assert {each.resource for each in found.assigned} == mine
    after = Counter(host for host in guests.values() if host not in lost | {N1})
    floor = {host: after[host] for host in HOSTS if host not in lost | {N1}}
    for each in found.assigned:
        assert floor[each.to] == min(floor.values()), "each goes where the fewest are"
        floor[each.to] += 1

"""Hosts that are shut down in order: a goodbye silences the fault of the agent, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from watched_fleet import HOSTS, Watched

from homeostat.contracts.events.fleet import HostDown
from homeostat.contracts.health import Impairment, ServerSigns, judge_health
from homeostat.contracts.nouns import SetPointState
from homeostat.fleet.api import HostsApi, HostState, ShownAgent, host_view, shown_agent, shown_host
from homeostat.fleet.model import AgentState
from homeostat.fleet.set_points import set_points
from homeostat.kernel.appender import Mode
from homeostat.server.assembly import server_health

N1, N2 = HOSTS[:2]
OTHERS = HOSTS[1:]


async def all_well() -> Watched:
    watched = Watched()
    watched.probe(*HOSTS)
    await watched.join()
    assert not watched.pass_s(5, *HOSTS)
    return watched


def shown(watched: Watched) -> tuple[HostState, ShownAgent]:
    topology, health = watched.world.topology, judge_health(ServerSigns(evidence=watched.watch.doubt))
    node = topology.nodes[N1]
    state, _ = shown_host(topology, node, watched.watch.answers(N1), health)
    return state, shown_agent(topology, node, health)


async def test_a_host_that_is_shut_down_in_order_and_vanishes_is_down() -> None:
    watched = await all_well()
    watched.link.goodbye(N1)
    watched.off.add(N1)
    (down, fault) = watched.events_in(2.0, *OTHERS)
    assert isinstance(down, HostDown)
    assert down.host == N1 and "stopped in order for" in down.reason
    assert type(fault).__name__ == "FaultRaised"
    assert shown(watched)[0] is HostState.DOWN
    assert watched.pass_s(60, *OTHERS) == []


async def test_a_node_process_that_is_stopped_is_no_fault_and_nobody_watches_its_resources() -> None:
    watched = await all_well()
    watched.link.goodbye(N1)
    assert watched.pass_s(60, *OTHERS) == []
    assert watched.world.topology.nodes[N1].agent is AgentState.STOPPED
    assert shown(watched) == (HostState.UP, ShownAgent.STOPPED), "the host answers"
    assert watched.world.topology.unheard == {N1}


def impairments(watched: Watched) -> list[Impairment]:
    """What a server that can write says of itself."""
    store: Any = SimpleNamespace(
        appender=SimpleNamespace(mode=Mode.WRITABLE, why=""), leader=SimpleNamespace(trouble="")
    )
    path: Any = SimpleNamespace(world=watched.world, hearing=watched.inbox, watch=watched.watch)
    return [each for each, _ in server_health(store, path).impairments]


@pytest.mark.parametrize(
    ("stopped", "silent", "deaf"), [(1, 2, False), (2, 1, False), (3, 0, False), (1, 3, True), (3, 1, True)]
)
async def test_a_server_hears_nobody_when_all_are_silent_that_did_not_stop_in_order(
    stopped: int, silent: int, deaf: bool
) -> None:
    watched = Watched()
    await watched.join()
    for host in HOSTS[:stopped]:
        watched.link.goodbye(host)
    watched.pass_s(60, *HOSTS[stopped + silent :])
    assert (Impairment.NO_NODE_HEARD in impairments(watched)) == deaf
    watched.pass_s(1, *HOSTS[stopped:])
    assert impairments(watched) == []


async def test_a_stopped_node_of_a_host_that_nobody_probes_is_shown_as_unknown() -> None:
    watched = Watched()
    await watched.join()
    watched.link.goodbye(N1)
    assert watched.pass_s(60, *OTHERS) == []
    assert shown(watched) == (HostState.UNKNOWN, ShownAgent.STOPPED)


async def test_a_reboot_that_ends_within_the_patience_moves_nothing() -> None:
    watched = await all_well()
    watched.link.goodbye(N1)
    watched.off.add(N1)
    assert watched.pass_s(1.2, *OTHERS) == []
    watched.off.clear()
    watched.link.beat(N1, "i2")
    assert watched.pass_s(0.2, *OTHERS) == ["AgentReturned"]
    assert watched.world.topology.unheard == frozenset()


async def test_most_hosts_shut_down_at_once_are_a_doubt() -> None:
    """People who switch a room off say so with a hold; what looks like a storm is none of single hosts."""
    watched = await all_well()
    for host in HOSTS[:3]:
        watched.link.goodbye(host)
        watched.off.add(host)
    assert "HostDown" not in watched.pass_s(30, HOSTS[3])
    assert "3 of 4" in watched.watch.doubt


async def test_rows_that_nobody_can_watch_do_not_hide_that_most_vanish_at_once() -> None:
    """Two of the four were decommissioned, and nothing probes them: two deaths are all there is."""
    watched = Watched()
    watched.probe(*HOSTS[:2])
    await watched.join()
    for host in HOSTS[2:]:
        watched.link.goodbye(host)
    watched.pass_s(5, *HOSTS[:2])
    watched.off |= {N1, N2}
    assert "HostDown" not in watched.pass_s(30)
    assert watched.watch.doubt


async def test_a_host_of_which_nothing_is_seen_is_neither_up_nor_is_the_promise_kept() -> None:
    """Its agent is lost, and the last answer to a probe is old: the prober hangs."""
    watched = await all_well()
    watched.probe(*OTHERS)
    watched.pass_s(10, *OTHERS)
    topology = watched.world.topology
    assert topology.nodes[N1].agent is AgentState.LOST and watched.probed[N1].answers
    assert shown(watched)[0] is HostState.UNKNOWN
    unseen = watched.watch.unseen(topology)
    (row,) = [row for row in set_points(topology, "", unseen) if row.promise == "hosts that are down"]
    assert (unseen, row.standing, row.value) == ([N1], SetPointState.UNKNOWN, None)
    assert "n1" in row.detail


async def test_both_witnesses_are_named_only_while_both_speak() -> None:
    watched = await all_well()
    assert witness(watched) == "both"
    assert witness(watched, connected=False) == "unknown"
    watched.off.add(N1)
    watched.pass_s(0.2, *HOSTS)
    assert witness(watched) == "unknown", "its probe has just failed"


def witness(watched: Watched, *, connected: bool = True) -> str:
    nothing: Any = None
    parts = HostsApi(
        topology=lambda: watched.world.topology,
        probed=lambda: watched.probed,
        answers=watched.watch.answers,
        health=lambda: judge_health(ServerSigns(connected=connected)),
        doubts=lambda: watched.watch.doubts,
        alone=lambda: watched.watch.alone_in_words,
        records=nothing,
        wall_ns=watched.clock.wall_ns,
        arming=nothing,
    )
    return host_view(parts, watched.world.topology.nodes[N1]).witness

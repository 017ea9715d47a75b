"""The sweep over the nodes, when the server itself was cut off or late."""

from __future__ import annotations

import pytest
from watched_fleet import HOSTS, LOST_AFTER_S, Watched

from homeostat.contracts.roles import LOOKED_EVERY_S
from set_clock import node_mono


async def test_a_silence_is_counted_from_the_end_of_the_servers_own_outage() -> None:
    watched = Watched()
    await watched.join()
    watched.link.connected = False
    watched.pass_s(60)
    assert "own link" in watched.watch.doubt
    watched.link.connected = True
    assert "AgentLost" not in watched.pass_s(0.2)
    assert watched.watch.doubt == "", "what nobody could hear is no silence of the nodes"
    assert "AgentLost" not in watched.pass_s(1.0, *HOSTS[1:])
    assert watched.pass_s(LOST_AFTER_S, *HOSTS[1:]) == ["AgentLost", "FaultRaised"]


async def test_a_late_server_calls_a_node_unheard_later() -> None:
    watched = Watched()
    await watched.join()
    watched.own_lag_s = 1.0
    watched.pass_s(LOST_AFTER_S + 0.4, *HOSTS[1:])
    assert watched.world.topology.unheard == frozenset()
    watched.pass_s(1.0, *HOSTS[1:])
    assert watched.world.topology.unheard == {HOSTS[0]}


def speaks(watched: Watched, seconds: float, looked: bool, since_s: float | None) -> None:
    """n1 speaks, and says whether its runner looks, and at which second it last did; the others as ever."""
    for _ in range(round(seconds * 5)):
        watched.clock.pass_s(0.2)
        now_ns = node_mono(watched.clock.now_s)
        since_ns = 0 if since_s is None else node_mono(since_s)
        watched.link.beat(HOSTS[0], looked=looked, sent_mono_ns=now_ns, looked_mono_ns=since_ns)
        watched.speak(*HOSTS[1:])
        watched.sweep()


@pytest.mark.seed("order nothing is shown up that is dead for longer than the detection interval")
async def test_what_nobody_looks_at_is_unknown_as_soon_as_what_nobody_speaks_of() -> None:
    """A runner that is frozen was believed for 20 s: 19.2 s shown up while dead."""
    watched = Watched()
    await watched.join()
    topology = watched.world.topology
    speaks(watched, LOST_AFTER_S, True, 0)
    assert topology.unlooked_at == frozenset()
    speaks(watched, LOOKED_EVERY_S + 0.2, True, 0)
    assert topology.unlooked_at == {HOSTS[0]}, "though the node has not noticed yet that it is frozen"
    speaks(watched, 0.2, True, watched.clock.now_s)
    assert topology.unlooked_at == frozenset()


async def test_a_runner_that_starts_has_its_time_unless_this_server_never_heard_of_a_look() -> None:
    """11.0 s shown up while dead: a guest that died beside the server, its runner just started."""
    watched = Watched()
    await watched.join()
    speaks(watched, 1, True, 0.9)
    speaks(watched, 2, False, None)
    assert watched.world.topology.unlooked_at == frozenset()
    another = Watched()
    await another.join()
    speaks(another, 0.2, False, None)
    assert another.world.topology.unlooked_at == {HOSTS[0]}


async def test_a_node_that_sent_no_heartbeat_yet_does_not_say_that_somebody_looks() -> None:
    """18.3 s shown up while dead: a server that was started again heard an answer to its resync first."""
    watched = Watched()
    await watched.join()
    del watched.inbox.lives[HOSTS[0]]
    watched.sweep()
    assert watched.world.topology.unheard == frozenset()
    assert watched.world.topology.unlooked_at == {HOSTS[0]}

"""The sweep over the nodes, when the server itself was cut off or late."""

from __future__ import annotations

from watched_fleet import HOSTS, LOST_AFTER_S, Watched


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

"""One witness of a host is left: that is told, and it alone needs more patience than two do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from watched_fleet import HOSTS, Watched

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.fleet import HostDown
from homeostat.contracts.nouns import FaultKind
from homeostat.fleet.suspicion import (
    HostEvidence,
    LoneWitness,
    Probed,
    ServerLink,
    SuspicionLimits,
    SuspicionOutcome,
    judge,
)

N1, N2, N3 = HOSTS[:3]
OTHERS = HOSTS[1:]
LONE_S = 15.0


async def all_well(**fleet: object) -> Watched:
    watched = Watched(**fleet)
    watched.probe(*HOSTS)
    await watched.join()
    assert not watched.pass_s(5, *HOSTS)
    return watched


def faults(events: list[object]) -> list[tuple[str, str]]:
    return [
        (each.about, "raised" if isinstance(each, FaultRaised) else "cleared")
        for each in events
        if isinstance(each, FaultRaised | FaultCleared)
    ]


async def test_probes_that_fail_while_the_agent_speaks_are_told() -> None:
    watched = await all_well()
    watched.off.add(N1)
    assert not watched.events_in(2.8, *HOSTS), "a blip is no fault"
    assert faults(watched.events_in(12, *HOSTS)) == [("witness/n1", "raised")]
    fault = watched.world.faults["witness/n1"]
    assert (fault.kind, fault.owner, fault.host) == (FaultKind.WITNESS_LOST, "infrastructure", N1)
    assert fault.reason == "outside probes fail: does not answer"
    assert watched.watch.alone == {N1: LoneWitness.AGENT}
    assert watched.watch.alone_in_words == {N1: "agent alone, down after 15 s"}
    watched.off.clear()
    assert faults(watched.events_in(2, *HOSTS)) == []
    assert watched.world.faults["witness/n1"].up_ns is not None
    assert watched.watch.alone == {}


async def test_a_pause_of_an_agent_that_is_alone_is_no_death() -> None:
    watched = await all_well()
    watched.off.add(N1)
    watched.events_in(15, *HOSTS)
    events = watched.events_in(2.6, *OTHERS)
    assert events == [], "1.07 s more of silence than its heartbeat once fenced a healthy host"
    assert watched.pass_s(1, *HOSTS) == []


async def test_an_agent_that_is_alone_and_silent_for_long_is_a_dead_host() -> None:
    watched = await all_well()
    watched.off.add(N1)
    watched.events_in(15, *HOSTS)
    events = watched.events_in(LONE_S - 0.2, *OTHERS)
    assert faults(events) == [("node/n1", "raised")], "its agent is lost"
    events = watched.events_in(1, *OTHERS)
    (down,) = (each for each in events if isinstance(each, HostDown))
    assert down.host == N1
    assert down.reason.endswith("outside probes fail: does not answer; agent alone before, patience 15 s")
    assert ("witness/n1", "cleared") in faults(events), "its whole host is down"


async def test_probes_that_are_alone_for_long_need_the_same_patience() -> None:
    """The node process was stopped for an hour; then a switch drops packets for ten seconds."""
    watched = await all_well()
    watched.link.goodbye(N1)
    assert watched.pass_s(3600, *OTHERS) == []
    assert watched.watch.alone == {N1: LoneWitness.PROBES}
    watched.off.add(N1)
    assert watched.pass_s(10, *OTHERS) == []
    watched.off.clear()
    assert watched.pass_s(60, *OTHERS) == []
    watched.off.add(N1)
    assert watched.pass_s(LONE_S, *OTHERS) == []
    (down,) = (each for each in watched.events_in(1, *OTHERS) if isinstance(each, HostDown))
    assert down.reason.endswith("; probes alone before, patience 15 s")


@pytest.mark.parametrize("apart_s", [0.0, 1.0, 2.0])
async def test_two_witnesses_that_fall_silent_together_need_the_short_patience(apart_s: float) -> None:
    watched = await all_well()
    watched.off.add(N1)
    assert not watched.pass_s(apart_s, *HOSTS)
    (down,) = (each for each in watched.events_in(2.0, *OTHERS) if isinstance(each, HostDown))
    assert "patience" not in down.reason, "both were there until just now"


async def test_a_host_that_returns_has_two_witnesses_again_though_its_probes_answer_later() -> None:
    watched = await all_well()
    watched.off.add(N1)
    assert "HostDown" in watched.pass_s(60, *OTHERS)
    assert "FaultRaised" not in watched.pass_s(1.0, *HOSTS), "it has only just begun to speak"
    watched.off.clear()
    assert not faults(watched.events_in(10, *HOSTS))
    watched.off.add(N1)
    assert "HostDown" in watched.pass_s(2.0, *OTHERS)


async def test_a_host_that_is_to_be_probed_and_is_not_has_one_witness() -> None:
    watched = await all_well(hosts=[{"host": host, "address": "127.0.0.1"} for host in HOSTS])
    watched.probed.clear()
    watched.probe(*OTHERS)
    assert faults(watched.events_in(10, *HOSTS)) == [("witness/n1", "raised")]
    assert "nothing probes it" in watched.world.faults["witness/n1"].reason
    watched.probe(*HOSTS)
    watched.events_in(0.4, *HOSTS)
    assert watched.world.faults["witness/n1"].up_ns is not None


async def test_a_host_that_is_not_to_be_probed_has_no_fault() -> None:
    watched = await all_well()
    watched.probed.pop(N1)
    watched.probe(*OTHERS)
    assert watched.events_in(60, *HOSTS) == []


async def test_a_lost_witness_is_known_after_another_server_has_taken_over() -> None:
    watched = await all_well()
    watched.off.add(N1)
    watched.events_in(15, *HOSTS)
    after = await all_well()
    after.world.faults.update(watched.world.faults)
    after.off.add(N1)
    after.probed.pop(N1)
    assert after.events_in(1, *HOSTS) == []
    assert after.events_in(2.6, *OTHERS) == []


async def test_a_witness_that_is_known_to_be_lost_does_not_hide_a_death_of_another_host() -> None:
    watched = Watched()
    watched.probe(*HOSTS[:3])
    await watched.join()
    watched.link.goodbye(HOSTS[3])
    watched.events_in(5, *HOSTS[:3])
    watched.off.add(N1)
    watched.events_in(15, *HOSTS[:3])
    watched.off.add(N2)
    assert "HostDown" in watched.pass_s(3, N1, N3), "n1 speaks: it is no part of what vanishes"


async def test_what_is_in_doubt_counts_for_no_witness() -> None:
    """Everybody was cut off for a minute; agents are heard again a moment before the probes are answered."""
    watched = await all_well()
    watched.off.update(HOSTS[:3])
    watched.events_in(60, HOSTS[3])
    assert watched.watch.doubt
    events = watched.events_in(1.0, *HOSTS)
    watched.off.clear()
    events += watched.events_in(5.0, *HOSTS)
    assert not [each for each in faults(events) if each[0].startswith("witness/")]


SECOND = 10**9
NOW = 1000 * SECOND
LIMITS = SuspicionLimits(3.0, 1.5, 3, 1.0, LONE_S)
FINE = HostEvidence(NOW - SECOND // 2, Probed(NOW, answers=9, answered_mono_ns=NOW))


def failing(since_s: float, answered_s: float) -> Probed:
    since, answered = NOW - round(since_s * SECOND), NOW - round(answered_s * SECOND)
    return Probed(NOW, 30, 0, "refused", 77, since, answered)


def verdict(host: HostEvidence) -> SuspicionOutcome:
    hosts = {N1: host, N2: FINE, N3: FINE}
    return judge(hosts, ServerLink(connected=True, since_ns=0), NOW, LIMITS)


@pytest.mark.parametrize(
    ("silent_s", "failing_s", "answered_s", "dead"),
    [
        (2.0, 2.0, 2.1, True),
        (2.0, 4.9, 5.0, True),
        (2.0, 5.1, 5.2, False),
        (2.0, 500.0, 501.0, False),
        (14.9, 500.0, 501.0, False),
        (15.1, 500.0, 501.0, True),
        (500.0, 14.9, 15.0, False),
        (500.0, 15.1, 15.2, True),
        (5.0, 2.1, 2.2, True),
        (5.2, 2.0, 2.1, False),
    ],
)
@pytest.mark.seed(
    "order with one witness gone for long, the other one's silence needs the patience of a lone witness"
)
def test_how_long_the_last_witness_must_be_silent(
    silent_s: float, failing_s: float, answered_s: float, dead: bool
) -> None:
    host = HostEvidence(
        NOW - round(silent_s * SECOND),
        failing(failing_s, answered_s),
        spoke_since_ns=1,
        agent_lost=silent_s > 3,
    )
    assert (N1 in verdict(host).dead) is dead


def test_probes_that_are_known_to_be_lost_leave_the_agent_alone_at_once() -> None:
    host = HostEvidence(NOW - 2 * SECOND, failing(2.0, 2.1), spoke_since_ns=1)
    assert N1 in verdict(host).dead
    assert N1 not in verdict(replace(host, probes_lost=True)).dead

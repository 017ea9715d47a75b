"""Which hosts are dead, and when nobody can know."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HostId
from homeostat.fleet.suspicion import (
    HostEvidence,
    Probed,
    ServerLink,
    SuspicionLimits,
    SuspicionOutcome,
    judge,
)

SECOND = 1_000_000_000
NOW = 1000 * SECOND
UP = ServerLink(connected=True, since_ns=0)
LIMITS = SuspicionLimits(lost_after_s=3.0, silent_after_s=1.5, probe_failures=3, probe_stale_s=1.0)
GOOD = Probed(NOW, answers=100)
FAILING = Probed(NOW, 3, 0, "refused", 77, NOW - SECOND)


def host(
    silent_s: float, probed: Probed | None = GOOD, *, lost: bool = False, down: bool = False
) -> HostEvidence:
    return HostEvidence(NOW - round(silent_s * SECOND), probed, agent_lost=lost, down=down)


def verdict(*hosts: HostEvidence, link: ServerLink = UP, lag_s: float = 0.0) -> SuspicionOutcome:
    return judge({HostId(f"n{i}"): each for i, each in enumerate(hosts, 1)}, link, NOW, LIMITS, lag_s)


FINE = host(0.5)


@pytest.mark.parametrize(
    ("evidence", "dead", "silent", "doubted"),
    [
        (host(2.0, FAILING), True, False, False),
        (host(5.0, FAILING), True, False, False),
        (host(5.0, FAILING, lost=True), True, False, False),
        (host(5.0, GOOD), False, True, False),
        (host(5.0, None), False, True, False),
        (host(2.0, GOOD), False, False, False),
        (host(0.5, FAILING), False, False, True),
        (host(2.0, replace(FAILING, failures=2)), False, False, False),
        (host(2.0, replace(FAILING, at_mono_ns=NOW - 2 * SECOND)), False, False, False),
        (host(9.0, FAILING, down=True), False, False, False),
        (host(9.0, GOOD, down=True), False, False, True),
    ],
)
@pytest.mark.seed("order host_down needs silence of the agent and failing outside probes")
def test_two_witnesses_make_a_dead_host_and_one_does_not(
    evidence: HostEvidence, dead: bool, silent: bool, doubted: bool
) -> None:
    found = verdict(evidence, FINE, FINE)
    n1 = HostId("n1")
    assert ((n1 in found.dead), (n1 in found.silent), (n1 in found.doubts)) == (dead, silent, doubted)
    assert not found.unknown


def test_a_death_says_why_and_since_when() -> None:
    death = verdict(host(2.0, FAILING), FINE, FINE).dead[HostId("n1")]
    assert "silent for 2.0 s" in death.reason
    assert "refused" in death.reason
    assert (death.first_failed_ns, death.first_failed_mono_ns) == (77, NOW - SECOND)


def test_more_than_half_at_once_accuses_nobody() -> None:
    found = verdict(host(2.0, FAILING), host(2.0, FAILING), FINE)
    assert "2 of 3" in found.unknown
    assert not found.dead


def test_hosts_that_fall_silent_one_after_the_other_are_seen_as_one_event() -> None:
    """Heartbeats have phases: when the first host is silent for long enough the last one is not."""
    found = verdict(host(1.6, FAILING), host(0.7, replace(FAILING, failures=1)), FINE)
    assert found.unknown
    assert not found.dead


def test_a_host_that_is_down_already_does_not_count_in_what_happens_at_once() -> None:
    found = verdict(host(99, FAILING, down=True), host(2.0, FAILING), FINE)
    assert set(found.dead) == {HostId("n2")}


def test_an_agent_that_was_lost_before_does_not_hide_a_death() -> None:
    found = verdict(host(99, GOOD, lost=True), host(2.0, FAILING), FINE)
    assert set(found.dead) == {HostId("n2")}


def test_one_single_host_is_never_accused() -> None:
    found = verdict(host(2.0, FAILING))
    assert not found.dead
    assert "only one host" in found.unknown


def test_a_broken_link_of_our_own_accuses_nobody() -> None:
    found = verdict(host(2.0, FAILING), FINE, FINE, link=ServerLink(connected=False, since_ns=0))
    assert not found.dead
    assert "own link" in found.unknown


def test_a_silence_is_counted_from_when_the_server_could_hear_again() -> None:
    """It has listened for a second: what was not heard before says nothing."""
    hosts = (host(5.0, FAILING), FINE, FINE)
    assert not verdict(*hosts, link=ServerLink(connected=True, since_ns=NOW - SECOND)).dead
    assert verdict(*hosts, link=ServerLink(connected=True, since_ns=NOW - 2 * SECOND)).dead


@pytest.mark.parametrize(("answers", "doubted"), [(1, False), (2, False), (3, True)])
def test_a_dead_host_answers_again_after_as_many_answers_as_it_took_failures(
    answers: int, doubted: bool
) -> None:
    found = verdict(host(9.0, Probed(NOW, answers=answers), down=True), FINE, FINE)
    assert bool(found.doubts) == doubted


def test_a_late_loop_is_more_patient_and_a_very_late_one_knows_nothing() -> None:
    assert not verdict(host(2.0, FAILING), FINE, FINE, lag_s=1.0).dead
    assert "own loop" in verdict(host(9.0, FAILING), FINE, FINE, lag_s=3.5).unknown


def test_a_late_loop_takes_older_results_of_probes() -> None:
    """It reads them late, too: without that, a host that died would have no second witness."""
    old = host(9.0, replace(FAILING, at_mono_ns=NOW - 3 * SECOND // 2))
    assert not verdict(old, FINE, FINE).dead
    assert set(verdict(old, FINE, FINE, lag_s=1.0).dead) == {HostId("n1")}


def test_the_end_of_a_doubt_is_not_the_beginning_of_a_storm() -> None:
    hosts = (host(60, FAILING), *(FINE,) * 3)
    assert not verdict(*hosts, link=ServerLink(connected=True, since_ns=0, doubted_ns=NOW - SECOND)).dead
    assert verdict(*hosts, link=ServerLink(connected=True, since_ns=0, doubted_ns=NOW - 2 * SECOND)).dead


def test_whoever_does_not_answer_is_suspected_before_it_is_accused() -> None:
    """Hosts that die together are accused one after the other: the gate has to see all of them at once."""
    once = replace(FAILING, failures=1, first_failed_ns=76)
    found = verdict(host(2.0, FAILING), host(0.7, once), *(FINE,) * 3, host(9, FAILING, down=True))
    assert set(found.dead) == {HostId("n1")}
    assert found.suspected == {HostId("n2"): 76}


evidence = st.builds(
    host,
    st.floats(0, 100),
    st.one_of(
        st.none(), st.builds(lambda n: Probed(NOW, n, 0, "no", 1, 1), st.integers(1, 9)), st.just(GOOD)
    ),
    lost=st.booleans(),
    down=st.booleans(),
)


@given(st.lists(evidence, max_size=40), st.booleans(), st.floats(0, 5))
@pytest.mark.seed("order never more than half of the hosts are accused at once")
def test_never_is_more_than_half_accused(hosts: list[HostEvidence], connected: bool, lag_s: float) -> None:
    found = verdict(*hosts, link=ServerLink(connected, 0), lag_s=lag_s)
    living = sum(not each.down for each in hosts)
    assert len(found.dead) * 2 <= living
    assert not (found.unknown and (found.dead or found.silent))
    assert connected or not (found.dead or found.silent)
    for name in found.dead:
        accused = hosts[int(name[1:]) - 1]
        assert not accused.down
        assert accused.probed is not None
        assert accused.probed.failures >= 3
        assert NOW - accused.heard_ns > 1.5 * SECOND


@pytest.mark.seed("order 200 of 300 hosts silent at once: no harm, unknown, recovery without a storm")
def test_two_hundred_of_three_hundred_fall_silent_and_come_back_and_nobody_is_ever_accused() -> None:
    """Step by step through the outage, each heartbeat with its own phase, each sweep 0.1 s after the last."""
    step = SECOND // 10
    doubted_ns, unknown = 0, 0
    for sweep in range(0, 300):
        now = NOW + sweep * step
        hosts = {}
        for number in range(300):
            phase = (number * 37 % 100) * SECOND // 100
            silent = number < 200 and 50 <= sweep < 200
            spoke = NOW + 50 * step if silent else now
            heard = spoke - (spoke - phase) % SECOND
            failures = min(9, sweep - 50) if silent else 0
            hosts[HostId(f"h{number}")] = HostEvidence(
                heard, Probed(now, failures, 0 if failures else 9, "no", 1)
            )
        found = judge(hosts, ServerLink(True, 0, doubted_ns), now, LIMITS)
        assert not found.dead
        assert not found.silent
        if found.unknown:
            doubted_ns, unknown = now, unknown + 1
    assert unknown > 100

"""A large fleet: most of it silent at once, two hosts dead, a third of it dead; through the real loops."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from homeostat.faults.aftermath import Aftermath
from homeostat.fleet.gate import Situation
from homeostat.sim.crowd import RECOVERY_S, SERVICES_DIE, Crowd, run_crowd
from homeostat.sim.disk import Disk
from homeostat.sim.parts import SimParts

HOSTS = 300


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    with closing(Disk.in_memory()) as disk:
        return run_crowd(HOSTS, disk)


def most_messages(hit: int, outages: int) -> dict[str, float]:
    """No storm: the heartbeats that there always are and one more of each host that returns; of what died on
    them two observations each at most, acknowledged once; and nobody is asked for everything."""
    return {
        "heartbeat": HOSTS * (RECOVERY_S + 1) + hit,
        "observations": 2 * outages,
        "acknowledged": 2 * outages,
    }


def within(sent: dict[str, int], most: dict[str, float]) -> bool:
    return all(count <= most.get(word, 0) for word, count in sent.items())


@pytest.mark.seed(
    "order 200 of 300 simulated hosts silent at once: no harm done, one notice to a person, "
    "recovery without a storm"
)
def test_most_hosts_silent_at_once_harm_nobody_and_return_without_a_storm(crowd: Crowd) -> None:
    told = crowd.stories["most are silent at once"]
    assert told.hit == 200
    assert (told.accused, told.fenced, told.refused) == (0, 0, {})
    assert told.told.pop(("evidence_lost", "raised")) == 1
    assert told.told.pop(("evidence_lost", "cleared")) == 1
    # What died in the silence is told once it can be heard, and nothing else is.
    assert told.told == {
        ("resource_down", "raised"): SERVICES_DIE,
        ("resource_down", "cleared"): SERVICES_DIE,
    }
    assert told.absent == 0
    assert within(told.sent, most_messages(told.hit, SERVICES_DIE)), told.sent


def test_two_dead_hosts_of_many_are_fenced(crowd: Crowd) -> None:
    told = crowd.stories["2 hosts die"]
    assert (told.hit, told.accused, told.fenced, told.refused) == (2, 2, 2, {})
    assert told.told == {("host_down", "raised"): 2, ("host_down", "cleared"): 2}
    assert told.absent == 0
    assert within(told.sent, most_messages(told.hit, 2)), told.sent


@pytest.mark.seed("order too many hosts that die at once are told and not fenced")
def test_a_third_that_dies_at_once_trips_the_storm_breaker_before_the_first_is_fenced(crowd: Crowd) -> None:
    told = crowd.stories["a third dies at once"]
    assert (told.hit, told.accused, told.fenced) == (100, 100, 0)
    assert told.refused == {"storm": 100}
    assert told.told.pop(("acts_stopped", "raised")) == 1, "a person is told once, whatever is stopped"
    assert told.told.pop(("acts_stopped", "cleared")) == 1
    assert told.told == {("host_down", "raised"): 100, ("host_down", "cleared"): 100}
    assert told.absent == 0
    assert within(told.sent, most_messages(told.hit, 100)), told.sent


def test_all_checkers_are_content(crowd: Crowd) -> None:
    assert not crowd.violations


class _CountsOnlyTheAccused(Aftermath):
    """Hosts die together and are accused one after the other: the first few look like single deaths."""

    def _situation(self) -> Situation:
        found = super()._situation()
        down = {host for host in found.deaths_s if self._parts.path.world.topology.is_down(host)}
        return replace(found, deaths_s={host: found.deaths_s[host] for host in down})


def test_a_storm_breaker_that_counts_only_the_accused_comes_too_late() -> None:
    """So the figure above means something."""
    with closing(Disk.in_memory()) as disk:
        told = run_crowd(60, disk, SimParts(aftermath=_CountsOnlyTheAccused)).stories["a third dies at once"]
    assert told.fenced > 0

"""A large fleet: most of it silent at once, two hosts dead, a third of it dead; through the real loops."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from homeostat.fleet.gate import Situation
from homeostat.recovery.after_death import FencingLoop
from homeostat.sim.database import SimDatabase
from homeostat.sim.run import RECOVERY_S, SERVICES_DIE, LargeFleetReport, run_large_fleet
from homeostat.sim.under_test import ClassesUnderTest


@pytest.fixture(scope="module", params=[90, pytest.param(300, marks=pytest.mark.slow)])
def crowd(request: pytest.FixtureRequest) -> LargeFleetReport:
    """300 hosts take a minute, so a smaller fleet goes first."""
    with closing(SimDatabase.in_memory()) as disk:
        return run_large_fleet(request.param, disk)


def most_messages(hosts: int, hit: int, outages: int) -> dict[str, float]:
    """No storm: the heartbeats that there always are and one more of each host that returns; of what died on
    them two observations each at most, acknowledged once; and nobody is asked for everything."""
    return {
        "heartbeat": hosts * (RECOVERY_S + 1) + hit,
        "observations": 2 * outages,
        "acknowledged": 2 * outages,
    }


def within(sent: dict[str, int], most: dict[str, float]) -> bool:
    return all(count <= most.get(word, 0) for word, count in sent.items())


@pytest.mark.seed(
    "order 200 of 300 simulated hosts silent at once: no harm done, one notice to a person, "
    "recovery without a storm"
)
def test_most_hosts_silent_at_once_harm_nobody_and_return_without_a_storm(crowd: LargeFleetReport) -> None:
    told = crowd.stories["most are silent at once"]
    assert told.hit == crowd.hosts * 2 // 3
    assert (told.accused, told.fenced, told.refused) == (0, 0, {})
    assert told.told.pop(("evidence_lost", "raised")) == 1
    assert told.told.pop(("evidence_lost", "cleared")) == 1
    # What died in the silence is told once it can be heard, and nothing else is.
    assert told.told == {
        ("resource_down", "raised"): SERVICES_DIE,
        ("resource_down", "cleared"): SERVICES_DIE,
    }
    assert told.absent == 0
    assert within(told.sent, most_messages(crowd.hosts, told.hit, SERVICES_DIE)), told.sent


def test_two_dead_hosts_of_many_are_fenced(crowd: LargeFleetReport) -> None:
    told = crowd.stories["2 hosts die"]
    assert (told.hit, told.accused, told.fenced, told.refused) == (2, 2, 2, {})
    assert told.told == {("host_down", "raised"): 2, ("host_down", "cleared"): 2}
    assert told.absent == 0
    assert within(told.sent, most_messages(crowd.hosts, told.hit, 2)), told.sent


@pytest.mark.seed("order too many hosts that die at once are told and not fenced")
def test_a_third_that_dies_at_once_trips_the_storm_breaker_before_the_first_is_fenced(
    crowd: LargeFleetReport,
) -> None:
    told = crowd.stories["a third dies at once"]
    third = crowd.hosts // 3
    assert (told.hit, told.accused, told.fenced) == (third, third, 0)
    assert told.refused == {"storm": 2 * third}, "neither fenced nor marked down at the cloud"
    assert told.told.pop(("acts_stopped", "raised")) == 1, "a person is told once, whatever is stopped"
    assert told.told.pop(("acts_stopped", "cleared")) == 1
    assert told.told == {("host_down", "raised"): third, ("host_down", "cleared"): third}
    assert told.absent == 0
    assert within(told.sent, most_messages(crowd.hosts, told.hit, 100)), told.sent


def test_all_checkers_are_content(crowd: LargeFleetReport) -> None:
    assert not crowd.violations


class _CountsOnlyTheAccused(FencingLoop):
    """Hosts die together and are accused one after the other: the first few look like single deaths."""

    def _situation(self) -> Situation:
        found = super()._situation()
        down = {host for host in found.deaths_s if self._parts.path.world.topology.is_down(host)}
        return replace(found, deaths_s={host: found.deaths_s[host] for host in down})


def test_a_storm_breaker_that_counts_only_the_accused_comes_too_late() -> None:
    """So the figure above means something."""
    with closing(SimDatabase.in_memory()) as disk:
        told = run_large_fleet(60, disk, ClassesUnderTest(_CountsOnlyTheAccused)).stories[
            "a third dies at once"
        ]
    assert told.fenced > 0

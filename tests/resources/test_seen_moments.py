"""The last evidence before a change: when a resource was last seen right, and last seen wrong."""

from __future__ import annotations

import pytest

from homeostat.contracts.nouns import ResourceState
from homeostat.resources.model import RunAction
from homeostat.resources.node.resource import RunnerPulse, SeenMoments
from homeostat.resources.ocf import ActionOutcome

MONITOR, START = RunAction("monitor", 5.0), RunAction("start", 5.0)
UP, DOWN = ResourceState.UP, ResourceState.DOWN


def test_a_look_counts_from_its_beginning() -> None:
    moments = SeenMoments()
    moments.ended(MONITOR, 100, ActionOutcome.OK)
    moments.ended(MONITOR, 200, ActionOutcome.NOT_RUNNING)
    assert moments.before(DOWN) == 100
    assert moments.before(UP) == 200


def test_what_is_started_was_not_up_when_the_start_began() -> None:
    moments = SeenMoments()
    moments.ended(MONITOR, 100, ActionOutcome.NOT_RUNNING)
    moments.ended(START, 300, ActionOutcome.OK)
    moments.ended(MONITOR, 400, ActionOutcome.OK)
    assert moments.before(UP) == 300


@pytest.mark.seed("order a process that was frozen itself does not call an outage short")
def test_a_watched_process_lived_at_the_last_look_but_one() -> None:
    """The runner may have been frozen between the last look and now."""
    moments, pulse = SeenMoments(), RunnerPulse()
    moments.ended(MONITOR, 100, ActionOutcome.OK)
    moments.watched_ns = 120
    for now_ns in (150, 250, 350):
        pulse.beat(now_ns)
    moments.died(pulse)
    assert moments.before(DOWN) == 250


def test_a_look_from_before_the_watch_says_nothing() -> None:
    moments, pulse = SeenMoments(), RunnerPulse()
    moments.ended(MONITOR, 100, ActionOutcome.OK)
    moments.watched_ns = 300
    for now_ns in (150, 250, 350):
        pulse.beat(now_ns)
    moments.died(pulse)
    assert moments.before(DOWN) == 100


def test_nobody_knows_before_the_first_look() -> None:
    assert SeenMoments().before(UP) == SeenMoments().before(DOWN) == 0
    assert SeenMoments(good_ns=5, bad_ns=7).before(ResourceState.STARTING) == 0

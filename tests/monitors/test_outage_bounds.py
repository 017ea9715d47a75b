"""The bounds hold the truth, whatever the interleaving: a model of a server and of a prober, and tables.

The model knows the truth because it makes it. Everything is in microseconds here and in nanoseconds there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from homeostat.monitors.outage import (
    Outage,
    ProbeAnswer,
    Sample,
    SamplingPlan,
    may_decide,
    measure,
    resolution_ms,
)

MS = 1_000_000
PERIOD, DEADLINE, LATE, RHO = 20 * MS, 200 * MS, 60 * MS, 3 * MS
FAULT = 500 * MS
MODES = ("refuse", "503", "hang", "lost")


@dataclass
class World:
    """A server that is out in `outages` (start, end), and a prober that does nothing in `stalls`."""

    mode: str
    outages: list[tuple[int, int]]
    stalls: list[tuple[int, int]] = field(default_factory=list)
    round_trips: list[int] = field(default_factory=lambda: [RHO])
    end: int = 3_000 * MS
    phase: int = 0

    def awake(self, at: int) -> int:
        """When the prober really does what is due then."""
        for start, stop in sorted(self.stalls):
            if start <= at < stop:
                at = stop
        return at

    def samples(self) -> list[Sample]:
        """What the prober writes down."""
        made, due, number = [], self.phase, 0
        while due < self.end:
            sent = self.awake(due)
            made.append(self._probe(due, sent, self._round_trip(number)))
            due += ((sent - due) // PERIOD + 1) * PERIOD
            number += 1
        return made

    def _round_trip(self, number: int) -> int:
        # The first sample shows the longest round trip there is: rho of the baseline.
        return RHO if number == 0 else self.round_trips[number % len(self.round_trips)]

    def _probe(self, due: int, sent: int, round_trip: int) -> Sample:
        arrives = sent + round_trip // 2
        out = next(((a, b) for a, b in self.outages if a <= arrives < b), None)
        if out is None or self.mode == "hang":
            answered = sent + round_trip if out is None else out[1] + round_trip // 2
            if answered <= sent + DEADLINE:
                done = self.awake(answered)
                return Sample(due, sent, done, ProbeAnswer.LATE if done - sent > LATE else ProbeAnswer.OK)
        elif self.mode == "refuse":
            return Sample(due, sent, self.awake(sent + round_trip), ProbeAnswer.REFUSED)
        elif self.mode == "503":
            return Sample(due, sent, self.awake(sent + round_trip), ProbeAnswer.ERROR)
        return Sample(due, sent, self.awake(sent + DEADLINE), ProbeAnswer.TIMEOUT)

    def measured(self) -> Outage:
        """What is concluded from it."""
        return measure(self.samples(), SamplingPlan(PERIOD, FAULT, self.end))


def ms(*values: int) -> list[float]:
    return [value / MS for value in values]


def world_of(seed: int, outages_max: int) -> World:
    """Any interleaving: when it stops, how long, how; when the prober sleeps, how long the network takes.

    From a seed, since it is the coincidences that matter: hypothesis's own numbers are small and seldom meet.
    """
    chance = Random(seed)
    sleeps = [chance.randrange(350 * MS) for _ in range(chance.randrange(4))]
    asleep = sum(sleeps)
    outages, at = [], FAULT
    for _ in range(chance.randint(1, outages_max)):
        # Up for long enough that a probe sent and answered in it is sure; what is shorter is not seen.
        at += 2 * PERIOD + 2 * RHO + asleep + chance.randrange(300 * MS)
        length = chance.randrange(chance.choice([2 * PERIOD, 300 * MS, 1_200 * MS]))
        outages.append((at, at + length))
        at += length
    edges = [edge for outage in outages for edge in outage]
    stalls = []
    for length in sleeps:
        # Anywhere, or just where it hurts: when the service stops or is back.
        near = chance.choice(edges) - chance.randrange(length + 1)
        start = max(FAULT, chance.choice([near, chance.randrange(FAULT, at + 300 * MS)]))
        stalls.append((start, start + length))
    return World(
        mode=chance.choice(MODES),
        outages=outages,
        stalls=stalls,
        round_trips=[chance.randint(1, RHO) for _ in range(7)],
        end=at + 2 * PERIOD + 2 * RHO + asleep + DEADLINE + chance.randrange(300 * MS),
        phase=chance.randrange(PERIOD),
    )


def worlds(outages_max: int = 1) -> st.SearchStrategy[World]:
    """Worlds of any seed."""
    return st.integers(0, 1 << 32).map(lambda seed: world_of(seed, outages_max))


@pytest.mark.seed("000 service outage time, with bounds that hold the truth")
@settings(max_examples=800, deadline=None)
@given(worlds())
def test_bounds_hold_the_truth_of_one_outage(world: World) -> None:
    (start, stop), found = world.outages[0], world.measured()
    assert found.upper_ms is not None
    assert found.lower_ms <= (stop - start) / MS <= found.upper_ms
    assert found.consistent


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_lower_gap_and_upper_are_in_order(world: World) -> None:
    found = world.measured()
    for episode in found.episodes:
        assert episode.upper_ms is None or episode.lower_ms <= episode.upper_ms
    longest = found.longest
    if longest is not None:
        assert longest.upper_ms is not None
        assert longest.lower_ms <= found.gap_ms <= longest.upper_ms <= (found.upper_ms or 0)


@settings(max_examples=150, deadline=None)
@given(worlds(outages_max=4))
def test_flapping_is_bounded_as_the_longest_and_as_a_sum(world: World) -> None:
    found = world.measured()
    truth = [stop - start for start, stop in world.outages]
    assert found.upper_ms is not None
    assert found.lower_ms <= max(truth) / MS <= found.upper_ms
    assert len(found.episodes) <= len(truth)
    assert found.total_lower_ms <= sum(truth) / MS + 1e-6
    assert found.consistent


@settings(max_examples=300, deadline=None)
@given(worlds(), st.integers(0, 100 * MS))
@example(
    world_of(251, 1), 0
)  # a late answer before a long sleep of the prober is no begin of what comes after
@example(world_of(1040, 1), 0)
def test_an_outage_that_does_not_end_is_censored(world: World, more: int) -> None:
    (start, _) = world.outages[0]
    world.end = start + sum(b - a for a, b in world.stalls) + 2 * DEADLINE + more
    world.outages = [(start, 1 << 60)]
    found = world.measured()
    assert found.upper_ms is None and found.longest is not None and found.longest.until_ns is None
    assert found.lower_ms <= (max(each.done_ns for each in world.samples()) - start) / MS
    assert found.consistent


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_a_prober_in_time_has_bounds_of_the_resolution_it_promised(world: World) -> None:
    world.stalls = []
    found = world.measured()
    (start, stop) = world.outages[0]
    if world.mode == "lost" or stop - start <= LATE + PERIOD:
        return
    (episode,) = found.episodes
    assert episode.upper_ms is not None
    assert episode.upper_ms - episode.lower_ms <= resolution_ms(*ms(PERIOD, 0, RHO)) + 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_is_seen(mode: str) -> None:
    found = World(mode, [(1_003 * MS, 2_001 * MS)]).measured()
    assert found.longest is not None and found.longest.upper_ms is not None
    assert found.longest.lower_ms == pytest.approx(998, abs=50)
    # Who loses requests for ever is seen to be well only by those sent afterwards.
    assert found.longest.upper_ms == pytest.approx(998, abs=50)


def test_bounds_hold_it_when_nobody_saw_it() -> None:
    found = World("503", [(1_004 * MS, 1_015 * MS)]).measured()
    assert found.episodes == () and found.lower_ms == 0
    assert found.upper_ms is not None and found.upper_ms >= 11


def test_a_prober_asleep_when_the_service_is_back_does_not_add_its_own_sleep() -> None:
    found = World("hang", [(1_003 * MS, 1_103 * MS)], stalls=[(1_060 * MS, 1_300 * MS)]).measured()
    assert found.upper_ms is not None
    assert found.lower_ms <= 100 <= found.upper_ms
    assert found.lateness_near_ms == 240


def test_a_late_prober_does_not_add_its_own_sleep_to_what_does_not_end() -> None:
    """Refused first, asked by nobody for a while, lost then: it may be back right after the last probe."""
    world = World("refuse", [(1_003 * MS, 1 << 60)], stalls=[(1_100 * MS, 1_500 * MS)], end=1_540 * MS)
    samples = [
        replace_end(each, DEADLINE, ProbeAnswer.TIMEOUT) if each.sent_ns >= 1_500 * MS else each
        for each in world.samples()
    ]
    found = measure(samples, SamplingPlan(PERIOD, FAULT, world.end))
    known_ms = (max(each.done_ns for each in samples) - 1_003 * MS) / MS
    assert found.upper_ms is None and 0 < found.lower_ms <= known_ms
    assert found.consistent


def replace_end(sample: Sample, after_ns: int, answer: ProbeAnswer) -> Sample:
    return sample._replace(done_ns=sample.sent_ns + after_ns, answer=answer)


def test_slow_is_not_out() -> None:
    slow = [
        Sample(
            at,
            at,
            at + (2 * MS if at < FAULT else 90 * MS),
            ProbeAnswer.OK if at < FAULT else ProbeAnswer.LATE,
        )
        for at in range(0, 2_000 * MS, PERIOD)
    ]
    found = measure(slow, SamplingPlan(PERIOD, FAULT, 2_000 * MS))
    # Only where the answers begin to be slow does a while pass without any.
    assert len(found.episodes) == 1
    assert found.lower_ms < 90 and found.upper_ms is not None and found.upper_ms < 120
    assert found.before is not None and found.during is not None
    assert (found.before.p50_ms, found.during.p50_ms) == (2, 90)


def test_tripled_latency_without_an_outage_is_reported() -> None:
    samples = [
        Sample(at, at, at + (2 if at < FAULT else 6) * MS, ProbeAnswer.OK)
        for at in range(0, 2_000 * MS, PERIOD)
    ]
    found = measure(samples, SamplingPlan(PERIOD, FAULT, 2_000 * MS))
    assert found.before is not None and found.during is not None
    assert found.episodes == () and found.during.p99_ms == 3 * found.before.p99_ms


def test_latency_counts_from_when_the_probe_was_due() -> None:
    samples = [Sample(0, 0, 2 * MS, ProbeAnswer.OK), Sample(20 * MS, 320 * MS, 322 * MS, ProbeAnswer.OK)]
    found = measure(samples, SamplingPlan(PERIOD, 10 * MS, 340 * MS))
    assert found.during is not None and found.during.p50_ms == 302


def test_one_failed_sample_is_zero_by_the_letter_and_an_interval_by_the_bounds() -> None:
    found = World("503", [(1_000 * MS, 1_012 * MS)], phase=5 * MS).measured()
    assert found.answers[ProbeAnswer.ERROR] == 1
    assert found.literal_ms == 0
    assert found.lower_ms == 0 and found.upper_ms is not None and 12 <= found.upper_ms <= 60


@pytest.mark.seed("000 the time between the first response failure and the last response failure")
def test_the_literal_value_is_from_first_to_last_failure() -> None:
    found = World("refuse", [(1_000 * MS, 1_100 * MS), (2_000 * MS, 2_100 * MS)]).measured()
    assert found.literal_ms == pytest.approx(1_080, abs=20)
    assert len(found.episodes) == 2
    assert found.upper_ms is not None and found.upper_ms < 150


def test_samples_that_stop_leave_the_rest_of_the_window_open() -> None:
    world = World("503", [])
    samples = [each for each in world.samples() if each.sent_ns < 1_000 * MS]
    found = measure(samples, SamplingPlan(PERIOD, FAULT, 7_000 * MS))
    assert found.upper_ms is not None and found.upper_ms >= 6_000


def test_a_monitor_of_its_own_machine_says_nothing_of_the_service() -> None:
    world = World("503", [])
    samples = [
        Sample(each.scheduled_ns, each.sent_ns, each.done_ns, ProbeAnswer.CLIENT_ERROR)
        if 1_000 * MS <= each.sent_ns < 1_500 * MS
        else each
        for each in world.samples()
    ]
    found = measure(samples, SamplingPlan(PERIOD, FAULT, world.end))
    assert found.episodes == () and found.upper_ms is not None and found.upper_ms >= 500


def test_shifted_monitors_taken_together_are_one_denser_monitor() -> None:
    merged = [
        sample
        for shift in (0, 20 * MS, 40 * MS)
        for sample in World("503", [(1_000 * MS, 1_500 * MS)], phase=shift).samples()
        if (sample.scheduled_ns - shift) % (3 * PERIOD) == 0
    ]
    found = measure(merged, SamplingPlan(PERIOD, FAULT, 3_000 * MS))
    assert found.upper_ms is not None
    assert found.lower_ms <= 500 <= found.upper_ms
    assert found.upper_ms - found.lower_ms <= resolution_ms(*ms(PERIOD, 0, RHO))


@pytest.mark.parametrize(
    ("period_ms", "lateness_ms", "rho_ms", "limit_ms", "may"),
    [
        (20, 1, 3, 5_000, True),
        (50, 10, 5, 5_000, True),
        (100, 20, 10, 5_000, False),
        (1_500, 0, 0, 5_000, False),
    ],
)
def test_resolution_is_checked_against_the_limit(
    period_ms: float, lateness_ms: float, rho_ms: float, limit_ms: float, may: bool
) -> None:
    assert may_decide(limit_ms, resolution_ms(period_ms, lateness_ms, rho_ms)) is may

"""The gate before harm: a table, and what no setting may open."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HostId
from homeostat.fleet.gate import GateReason, GateRequest, RecentActs, Situation, decide, storm_refusal
from homeostat.fleet.settings import RATE_MAX, GateSettings

N1, N2 = HostId("n1"), HostId("n2")
ASKED = GateRequest("recovery", "fence", N1, 7)
OPEN = Situation(
    now_s=1000,
    epoch=7,
    living=frozenset(HostId(f"n{number}") for number in range(1, 11)),
    unknown="",
    held={},
    deaths_s={N1: 999.0},
    done_s={},
    armed={"recovery": True},
)
SETTINGS = GateSettings()


def why(situation: Situation, settings: GateSettings = SETTINGS) -> GateReason | None:
    refusal = decide(ASKED, situation, settings)
    return None if refusal is None else refusal.why


def hosts(count: int) -> frozenset[HostId]:
    return frozenset(HostId(f"n{number}") for number in range(1, count + 1))


def deaths(count: int, apart_s: float = 0.5) -> dict[HostId, float]:
    return {HostId(f"n{i}"): 10.0 + i * apart_s for i in range(1, count + 1)}


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (OPEN, None),
        (replace(OPEN, epoch=8), GateReason.NOT_LEADING),
        (replace(OPEN, unknown="half is silent"), GateReason.UNKNOWN),
        (replace(OPEN, held={N1: "new disks"}), GateReason.HELD),
        (replace(OPEN, held={N2: "new disks"}), None),
        (replace(OPEN, deaths_s=deaths(2)), None),
        (replace(OPEN, deaths_s=deaths(3)), GateReason.STORM),
        (replace(OPEN, deaths_s=deaths(3, apart_s=60)), None),
        (replace(OPEN, living=frozenset({N1})), None),
        (replace(OPEN, done_s={"fence": (999.0,) * 4}), None),
        (replace(OPEN, done_s={"fence": (999.0,) * 5}), GateReason.RATE),
        (replace(OPEN, done_s={"fence": (900.0,) * 5}), None),
        (replace(OPEN, done_s={"fence": (OPEN.now_s - SETTINGS.harm_window_s,) * 5}), GateReason.RATE),
        (replace(OPEN, done_s={"fence": (OPEN.now_s - SETTINGS.harm_window_s - 1,) * 5}), None),
        (replace(OPEN, done_s={"mark_down": (999.0,) * 500, "start_elsewhere": (999.0,) * 500}), None),
        (replace(OPEN, armed={}), GateReason.NOT_ARMED),
        (replace(OPEN, armed={"recovery": False, "storage": True}), GateReason.NOT_ARMED),
    ],
)
@pytest.mark.seed("order the gate before harm: epoch, arming, rate limit, storm breaker, hold, dry run")
def test_the_first_no_is_the_reason(situation: Situation, expected: GateReason | None) -> None:
    assert why(situation) is expected


def test_a_storm_does_not_pass_by_waiting() -> None:
    assert why(replace(OPEN, now_s=10**6, deaths_s=deaths(3))) is GateReason.STORM


def test_a_dry_run_decides_everything_and_does_nothing() -> None:
    assert why(OPEN, GateSettings(dry_run=True)) is GateReason.DRY_RUN


def test_nothing_is_armed_unless_somebody_says_so() -> None:
    assert SETTINGS.armed == []


def test_a_refusal_has_its_figures() -> None:
    refusal = decide(ASKED, replace(OPEN, deaths_s=deaths(4)), SETTINGS)
    assert refusal is not None
    assert "4 of 10 in 5 s" in refusal.sentence


@given(st.booleans(), st.integers(0, 9), st.integers(0, 9), st.sampled_from(["", "no"]), st.integers(6, 8))
def test_the_gate_opens_only_when_nothing_speaks_against_it(
    armed: bool, harm: int, died: int, unknown: str, epoch: int
) -> None:
    situation = replace(
        OPEN,
        epoch=epoch,
        unknown=unknown,
        deaths_s=deaths(died),
        done_s={"fence": (999.0,) * harm},
        armed={"recovery": armed},
    )
    is_open = why(situation) is None
    assert is_open == (armed and harm < 5 and died < 3 and not unknown and epoch == 7)


LIMITS = GateSettings(harm_max=2, mark_max=3, mark_window_s=10, start_max=4, start_window_s=20)


@pytest.mark.parametrize(
    ("act", "most", "window_s", "setting"),
    [
        ("fence", 2, 60, "harm_max"),
        ("mark_down", 3, 10, "mark_max"),
        ("set_error", 3, 10, "mark_max"),
        ("start_elsewhere", 4, 20, "start_max"),
        ("something_new", 2, 60, "harm_max"),
    ],
)
def test_each_kind_of_act_has_a_rate_of_its_own(act: str, most: int, window_s: float, setting: str) -> None:
    others = {"fence", "mark_down", "set_error", "start_elsewhere", "something_new"} - {act}
    busy = dict.fromkeys(others, (999.0,) * 1000)
    asked = replace(ASKED, act=act)
    below = replace(OPEN, done_s={**busy, act: (999.0,) * (most - 1)})
    full = replace(OPEN, done_s={**busy, act: (999.0,) * most})
    assert decide(asked, below, LIMITS) is None
    refusal = decide(asked, full, LIMITS)
    assert refusal is not None and refusal.why is GateReason.RATE
    assert f"{act}: {most} in {window_s:g} s, fleet.gate.{setting}: {most}" in refusal.sentence
    assert decide(asked, replace(full, now_s=999.0 + window_s + 0.1), LIMITS) is None


def test_an_act_that_is_decided_again_counts_once_and_one_that_is_not_done_not_at_all() -> None:
    recent = RecentActs()
    recent.count("fence", "fence-n1-1", 1.0)
    recent.count("fence", "fence-n1-1", 2.0)
    recent.count("fence", "fence-n2-1", 3.0)
    recent.discard("fence", "fence-n2-1")
    assert recent.by_kind() == {"fence": (2.0,)}
    for number in range(RATE_MAX + 10):
        recent.count("mark_down", f"{number}", float(number))
    assert recent.by_kind()["mark_down"] == tuple(float(number) for number in range(10, RATE_MAX + 10))


TWO_OF_THREE = replace(OPEN, living=hosts(3), deaths_s={N1: 10.0, N2: 11.5})


@pytest.mark.seed("order the gate before harm: epoch, arming, rate limit, storm breaker, hold, dry run")
@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (TWO_OF_THREE, GateReason.STORM),
        (replace(TWO_OF_THREE, vouched=frozenset({N2})), None),
        (replace(TWO_OF_THREE, vouched=frozenset({N1})), None),
        (replace(OPEN, living=hosts(6), deaths_s=deaths(3), vouched=frozenset({N1})), None),
        (
            replace(OPEN, living=hosts(6), deaths_s=deaths(4), vouched=frozenset({HostId("n4")})),
            GateReason.STORM,
        ),
        (replace(TWO_OF_THREE, fenced_s={N1: 11.4}), None),
        (replace(TWO_OF_THREE, fenced_s={N1: 12.0}), GateReason.STORM),
        (replace(TWO_OF_THREE, fenced_s={N2: 12.0}), GateReason.STORM),
        (replace(TWO_OF_THREE, vouched=frozenset({N1}), held={N1: "new disks"}), GateReason.HELD),
    ],
)
def test_a_person_lifts_a_storm_and_a_driver_does_not(
    situation: Situation, expected: GateReason | None
) -> None:
    """A receipt that was there before the storm began is worth what it was."""
    assert why(situation) is expected


def test_people_are_told_of_a_storm_that_stops_what_nothing_else_stops() -> None:
    told = [
        storm_refusal(ASKED, situation, SETTINGS) is not None
        for situation in (
            TWO_OF_THREE,
            replace(TWO_OF_THREE, done_s={"fence": (999.0,) * 5}),
            replace(TWO_OF_THREE, armed={}),
            replace(TWO_OF_THREE, unknown="half is silent"),
            replace(TWO_OF_THREE, vouched=frozenset({N2})),
            OPEN,
        )
    ]
    assert told == [True, True, False, False, False, False]


@pytest.mark.parametrize("decommissioned", [0, 4, 100])
@pytest.mark.seed("order the storm breaker's share is of living, watched hosts")
def test_hosts_that_were_down_long_before_do_not_make_a_storm_smaller(decommissioned: int) -> None:
    """Four of ten died at once; of the others nobody would have seen it."""
    long_ago = {HostId(f"old{number}"): 100.0 * -number for number in range(1, decommissioned + 1)}
    living = hosts(10) - deaths(4).keys()
    assert why(replace(OPEN, living=living, deaths_s={**long_ago, **deaths(4)})) is GateReason.STORM
    said = decide(ASKED, replace(OPEN, living=living, deaths_s={**long_ago, **deaths(4)}), SETTINGS)
    assert said is not None and "4 of 10 in 5 s" in said.sentence


def test_hosts_of_the_storm_itself_count_in_what_it_is_a_share_of() -> None:
    living = hosts(20) - deaths(5).keys()
    assert why(replace(OPEN, living=living, deaths_s=deaths(5))) is None, "5 of 20"


def test_a_storm_does_not_shrink_when_a_person_vouches_for_a_host_of_it() -> None:
    living = hosts(10) - deaths(3).keys()
    vouched = frozenset({HostId("n3")})
    assert why(replace(OPEN, living=living, deaths_s=deaths(3), vouched=vouched)) is None, "2 of 10"

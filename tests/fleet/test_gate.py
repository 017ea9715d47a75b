"""The gate before harm: a table, and what no setting may open."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HostId
from homeostat.fleet.gate import Asked, Situation, Why, decide, stopped_by_storm
from homeostat.fleet.settings import GateSettings

N1, N2 = HostId("n1"), HostId("n2")
ASKED = Asked("faults", "fence", N1, 7)
OPEN = Situation(
    now_s=1000,
    epoch=7,
    hosts=10,
    unknown="",
    held={},
    deaths_s={N1: 999.0},
    harm_s=(),
    armed={"faults": True},
)
SETTINGS = GateSettings()


def why(situation: Situation, settings: GateSettings = SETTINGS) -> Why | None:
    refusal = decide(ASKED, situation, settings)
    return None if refusal is None else refusal.why


def deaths(count: int, apart_s: float = 0.5) -> dict[HostId, float]:
    return {HostId(f"n{i}"): 10.0 + i * apart_s for i in range(1, count + 1)}


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (OPEN, None),
        (replace(OPEN, epoch=8), Why.NOT_LEADING),
        (replace(OPEN, unknown="half is silent"), Why.UNKNOWN),
        (replace(OPEN, held={N1: "new disks"}), Why.HELD),
        (replace(OPEN, held={N2: "new disks"}), None),
        (replace(OPEN, deaths_s=deaths(2)), None),
        (replace(OPEN, deaths_s=deaths(3)), Why.STORM),
        (replace(OPEN, deaths_s=deaths(3, apart_s=60)), None),
        (replace(OPEN, hosts=1), None),
        (replace(OPEN, harm_s=(999.0,) * 4), None),
        (replace(OPEN, harm_s=(999.0,) * 5), Why.RATE),
        (replace(OPEN, harm_s=(900.0,) * 5), None),
        (replace(OPEN, armed={}), Why.NOT_ARMED),
        (replace(OPEN, armed={"faults": False, "storage": True}), Why.NOT_ARMED),
    ],
)
@pytest.mark.seed("order the gate before harm: epoch, arming, rate limit, storm breaker, hold, dry run")
def test_the_first_no_is_the_reason(situation: Situation, expected: Why | None) -> None:
    assert why(situation) is expected


def test_a_storm_does_not_pass_by_waiting() -> None:
    assert why(replace(OPEN, now_s=10**6, deaths_s=deaths(3))) is Why.STORM


def test_a_dry_run_decides_everything_and_does_nothing() -> None:
    assert why(OPEN, GateSettings(dry_run=True)) is Why.DRY_RUN


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
        harm_s=(999.0,) * harm,
        armed={"faults": armed},
    )
    is_open = why(situation) is None
    assert is_open == (armed and harm < 5 and died < 3 and not unknown and epoch == 7)


TWO_OF_THREE = replace(OPEN, hosts=3, deaths_s={N1: 10.0, N2: 11.5})


@pytest.mark.seed("order the gate before harm: epoch, arming, rate limit, storm breaker, hold, dry run")
@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (TWO_OF_THREE, Why.STORM),
        (replace(TWO_OF_THREE, vouched=frozenset({N2})), None),
        (replace(TWO_OF_THREE, vouched=frozenset({N1})), None),
        (replace(OPEN, hosts=6, deaths_s=deaths(3), vouched=frozenset({N1})), None),
        (replace(OPEN, hosts=6, deaths_s=deaths(4), vouched=frozenset({HostId("n4")})), Why.STORM),
        (replace(TWO_OF_THREE, fenced_s={N1: 11.4}), None),
        (replace(TWO_OF_THREE, fenced_s={N1: 12.0}), Why.STORM),
        (replace(TWO_OF_THREE, fenced_s={N2: 12.0}), Why.STORM),
        (replace(TWO_OF_THREE, vouched=frozenset({N1}), held={N1: "new disks"}), Why.HELD),
    ],
)
def test_a_person_lifts_a_storm_and_a_driver_does_not(situation: Situation, expected: Why | None) -> None:
    """A receipt that was there before the storm began is worth what it was."""
    assert why(situation) is expected


def test_people_are_told_of_a_storm_that_stops_what_nothing_else_stops() -> None:
    told = [
        stopped_by_storm(ASKED, situation, SETTINGS) is not None
        for situation in (
            TWO_OF_THREE,
            replace(TWO_OF_THREE, harm_s=(999.0,) * 5),
            replace(TWO_OF_THREE, armed={}),
            replace(TWO_OF_THREE, unknown="half is silent"),
            replace(TWO_OF_THREE, vouched=frozenset({N2})),
            OPEN,
        )
    ]
    assert told == [True, True, False, False, False, False]

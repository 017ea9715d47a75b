"""The gate before harm: a table, and what no setting may open."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HostId
from homeostat.fleet.gate import Asked, Situation, Why, decide
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

"""Who has a site: one at a time, for as long as it is renewed, and nobody while drills are halted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.drills.leader.runs import (
    LAPSE_NS,
    Claim,
    Halt,
    SiteClaims,
    claim_holder,
    lapsed_claims,
    reloaded_claims,
    renewed_claims,
    stop_reason,
)

HALT = Halt("anna", "infrastructure", "smoke in rack 4", 1)


def claimed(*claims: Claim, halt: Halt | None = None) -> SiteClaims:
    return SiteClaims({each.site: each for each in claims}, halt)


def claim(run: str = "r-1", site: str = "lab", until_ns: int = LAPSE_NS) -> Claim:
    return Claim(site, run, "infrastructure", "admin", until_ns)


@pytest.mark.seed("order one drill at a time per cluster: a claim lapses when it is not renewed")
def test_a_claim_holds_until_it_lapses_and_not_a_moment_longer() -> None:
    known = claimed(claim())
    assert claim_holder(known, "lab", LAPSE_NS - 1) == claim()
    assert claim_holder(known, "lab", LAPSE_NS) is None
    assert claim_holder(known, "other", 0) is None
    assert (lapsed_claims(known, LAPSE_NS - 1), lapsed_claims(known, LAPSE_NS)) == ((), (claim(),))


def test_a_renewal_prolongs_what_holds_and_does_not_revive_what_lapsed() -> None:
    known = claimed(claim())
    assert claim_holder(renewed_claims(known, "r-1", LAPSE_NS - 1), "lab", 2 * LAPSE_NS - 2) is not None
    assert renewed_claims(known, "r-1", LAPSE_NS) == known
    assert renewed_claims(known, "r-2", 0) == known
    assert "lapsed" in (stop_reason(known, "r-1", LAPSE_NS) or "")
    assert "lapsed" in (stop_reason(known, "r-2", 0) or "")
    assert stop_reason(known, "r-1", 0) is None


@pytest.mark.seed("order drill halt: every running drill hears who halted it and why")
def test_a_halt_stops_every_run_and_says_who_and_why() -> None:
    known = claimed(claim(), claim("r-2", "other"), halt=HALT)
    for run in ("r-1", "r-2"):
        assert stop_reason(known, run, 0) == "halted by anna: smoke in rack 4"


def test_reading_again_prolongs_nothing_and_a_stranger_gets_its_time() -> None:
    known = claimed(claim(until_ns=7))
    read = reloaded_claims([claim(until_ns=99), claim("r-2", "other", 99)], known, None)
    assert [each.until_ns for each in read.by_site.values()] == [7, 99]
    assert reloaded_claims([], known, HALT) == SiteClaims({}, HALT)


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "renew"]), st.sampled_from("ab"), st.integers(0, LAPSE_NS)))
)
def test_whatever_two_tools_do_one_of_them_at_most_may_go_on(steps: list[tuple[str, str, int]]) -> None:
    known, now_ns = SiteClaims(), 0
    for verb, run, later_ns in steps:
        now_ns += later_ns
        if verb == "renew":
            known = renewed_claims(known, run, now_ns)
        elif claim_holder(known, "lab", now_ns) is None:
            known = known.with_claim(claim(run, until_ns=now_ns + LAPSE_NS))
        assert sum(stop_reason(known, each, now_ns) is None for each in "ab") <= 1

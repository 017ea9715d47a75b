"""What is run for the evidence, how often, and when it is enough. Pure, so tables and properties."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.errors import BadInput
from homeostat.monitors.verdicts import Verdict
from testbed.campaign import (
    CASES,
    PLAIN,
    REPEATED_AT_MOST,
    VARIANTS,
    Case,
    chosen,
    is_enough,
    left,
    surprises,
)

V = Verdict
PASSES = Case("keystone-down")
SAYS_NOTHING = Case("controller-disk-io-overload", expected=frozenset({V.INCONCLUSIVE}))


def test_every_case_has_its_own_folder_on_a_variant_that_is_brought_up() -> None:
    assert len({each.id for each in CASES}) == len(CASES)
    assert {each.variant for each in CASES} == set(VARIANTS)


@pytest.mark.parametrize("variant", [each for each in VARIANTS if each is not PLAIN])
def test_a_variant_differs_from_the_plain_cloud_in_one_thing(variant: object) -> None:
    told = {each.name for each in fields(PLAIN)} - {"name", "differs"}
    assert len([name for name in told if getattr(variant, name) != getattr(PLAIN, name)]) == 1


@pytest.mark.parametrize(
    ("case", "said", "enough"),
    [
        (PASSES, [], False),
        (PASSES, [V.PASS], True),
        (PASSES, [V.FAIL], True),
        (PASSES, [V.INCONCLUSIVE], False),
        (PASSES, [V.ERROR, V.INCONCLUSIVE], False),
        (PASSES, [V.INCONCLUSIVE, V.PASS], True),
        (PASSES, [V.INCONCLUSIVE] * 3, True),
        (SAYS_NOTHING, [V.INCONCLUSIVE], True),
        (SAYS_NOTHING, [V.ERROR], False),
    ],
)
def test_what_decided_is_not_repeated_and_what_did_not_is_twice_at_most(
    case: Case, said: list[Verdict], enough: bool
) -> None:
    assert is_enough(case, said) is enough


@given(st.data())
def test_a_campaign_ends_and_no_run_has_more_attempts_than_it_may(data: st.DataObject) -> None:
    runs = data.draw(st.integers(1, 4))
    said: dict[tuple[str, int], list[Verdict]] = {}
    while todo := next(left(CASES, runs, said), None):
        case, number = todo
        said.setdefault((case.id, number), []).append(data.draw(st.sampled_from(list(Verdict))))
    assert set(said) == {(case.id, number) for case in CASES for number in range(1, runs + 1)}
    for attempts in said.values():
        assert len(attempts) <= 1 + REPEATED_AT_MOST
        assert not {V.PASS, V.FAIL} & set(attempts[:-1])


def test_what_has_its_report_is_not_run_again_and_the_rest_goes_in_rounds() -> None:
    two = (Case("nova-api-down"), PASSES)
    done = {("nova-api-down", 1): [V.PASS]}
    assert [(case.drill, number) for case, number in left(two, 2, done)] == [
        ("keystone-down", 1),
        ("nova-api-down", 2),
        ("keystone-down", 2),
    ]


def test_one_cloud_after_the_other() -> None:
    names = [case.variant.name for case, _ in left(CASES, 3, {})]
    changes = [name for name, before in zip(names, [None, *names], strict=False) if name != before]
    assert changes == [each.name for each in VARIANTS]


def test_a_verdict_that_should_not_be_is_told_with_what_it_should_be() -> None:
    said = {("keystone-down", 1): [V.PASS], ("keystone-down", 2): [V.INCONCLUSIVE, V.FAIL]}
    assert surprises((PASSES,), said) == ["keystone-down, run 2: FAIL, not PASS"]


def test_an_unknown_case_is_refused_with_those_that_there_are() -> None:
    assert chosen(["keystone-down.slow-checks"])[0].variant.name == "slow-checks"
    assert chosen([]) == CASES
    with pytest.raises(BadInput, match=r"--only: 'tc003'.*keystone-down"):
        chosen(["tc003"])

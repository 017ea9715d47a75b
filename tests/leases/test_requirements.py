"""Requirements on hosts: Blazar's language, read whole or refused."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.errors import BadInput
from homeostat.leases.requirements import (
    CHARACTERS_MAX,
    CONDITIONS_MAX,
    HYPERVISOR_PROPERTIES,
    NUMBERS,
    Condition,
    HostFacts,
    MalformedRequirements,
    Operator,
    Requirements,
    parse_requirements,
    refuse_unknown,
)

FIELD = "reservations.0.resource_properties"
N1: HostFacts = {
    "id": "1",
    "vcpus": 8,
    "memory_mb": 16384,
    "local_gb": 100,
    "hypervisor_hostname": "n1",
    "cpu_info": '{"arch": "x86_64"}',
    "rack": "r1",
    "gpus": "9",
    "release": "2.10",
}


def parse(found: object) -> Requirements:
    return parse_requirements(json.dumps(found), FIELD)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([">=", "$vcpus", "8"], True),
        ([">=", "$vcpus", "9"], False),
        (["=", "$vcpus", "8"], True),
        (["==", "$vcpus", "08"], True),
        (["!=", "$vcpus", "8"], False),
        (["<", "$memory_mb", "16385"], True),
        ([">", "$memory_mb", "16384"], False),
        (["<=", "$local_gb", "100"], True),
        (["in", "$vcpus", "4, 8"], True),
        (["in", "$hypervisor_hostname", "n2,n1"], True),
        (["in", "$hypervisor_hostname", "n2,n3"], False),
        (["=", "$rack", "r1"], True),
        (["=", "$rack", "R1"], False),
        (["=", "$release", "2.1"], False),
        ([">=", "$release", "2.1"], True),
        ([">", "$gpus", "10"], False),
        ([">", "$gpus", "many"], False),
        (["<", "$gpus", "many"], False),
        ([">", "$rack", "r0"], True),
        (["!=", "$ssd", "yes"], False),
        (["=", "$ssd", "yes"], False),
        (["and", [">=", "$vcpus", "4"], ["=", "$rack", "r1"]], True),
        (["and", [">=", "$vcpus", "4"], ["=", "$rack", "r2"]], False),
        (["and", [">=", "$vcpus", "4"]], True),
        (["and", ["and", [">=", "$vcpus", "4"], ["=", "$rack", "r2"]], ["=", "$gpus", "9"]], False),
        ([], True),
    ],
    ids=str,
)
def test_a_host_meets_them_or_not(found: object, expected: bool) -> None:
    assert parse(found).admit(N1) is expected


@pytest.mark.parametrize("text", ["", "  ", "[]"])
def test_nothing_asks_for_nothing(text: str) -> None:
    assert parse_requirements(text, FIELD) == Requirements(text)


def test_numbers_have_the_order_of_numbers_and_not_of_text_as_in_blazar() -> None:
    """Blazar compares the text of a resource property: nine GPUs are more than ten there."""
    assert Condition("gpus", Operator.LESS, "10").holds({"gpus": "9"})
    assert "9" > "10"


def test_a_nested_and_loses_nothing() -> None:
    """Blazar takes the first condition of an inner "and" and drops the others without a word."""
    nested = parse(["and", ["and", [">=", "$vcpus", "4"], ["=", "$rack", "r2"]], ["<", "$local_gb", "200"]])
    assert [each.name for each in nested.conditions] == ["vcpus", "rack", "local_gb"]
    assert [each.name for each in nested.unmet(N1)] == ["rack"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["or", ["=", "$rack", "r1"], ["=", "$rack", "r2"]]', '"or" is not supported: only "and" is'),
        ('["not", ["=", "$rack", "r1"]]', '"not" is not supported'),
        ('["and", ["or", ["=", "$rack", "r1"]]]', '"or" is not supported'),
        ('[">=", "vcpus", "4"]', "a property begins with $"),
        ('[">=", "$", "4"]', "a property begins with $"),
        ('[">=", "$vcpus", 4]', 'the value is text, such as "4"'),
        ('[">=", "$vcpus", "four"]', "$vcpus is a whole number; 'four' is none"),
        ('["in", "$vcpus", "4,"]', "$vcpus is a whole number"),
        ('[">=", "$vcpus", "4.5"]', "$vcpus is a whole number"),
        ('["=", "$rack", ""]', "a value for $rack"),
        ('["~", "$rack", "r1"]', "'~' is no operator; known are =, ==, !="),
        ('["and"]', "either ["),
        ('["and", []]', "either ["),
        ('["and", "$rack", "r1"]', "either ["),
        ('[">=", "$vcpus"]', "either ["),
        ('[">=", "$vcpus", "4", "5"]', "either ["),
        ('{"vcpus": 4}', "either ["),
        ("null", "either ["),
        ("vcpus >= 4", "either ["),
        ("[" * 9000, "either ["),
        (" " + "x" * CHARACTERS_MAX, f"at most {CHARACTERS_MAX} characters"),
        (json.dumps(["and", *[["=", "$a", "1"]] * (CONDITIONS_MAX + 1)]), f"at most {CONDITIONS_MAX} cond"),
    ],
    ids=lambda text: text[:40],
)
def test_what_cannot_be_read_is_refused_with_what_would_do(text: str, said: str) -> None:
    with pytest.raises(MalformedRequirements, match=re.escape(said)) as refused:
        parse_requirements(text, FIELD)
    assert refused.value.field == FIELD
    assert refused.value.value == text


def test_a_property_that_no_host_has_is_refused_and_the_known_are_named() -> None:
    asked = parse(["and", [">=", "$vcpus", "4"], ["=", "$rack", "r1"], ["=", "$colour", "red"]])
    refuse_unknown(asked, {"rack", "colour"}, FIELD)
    with pytest.raises(MalformedRequirements, match=r"no host has a property 'colour'; known are .*rack"):
        refuse_unknown(asked, {"rack"}, FIELD)
    with pytest.raises(BadInput, match=r"known are .*, \.\.\."):
        refuse_unknown(asked, {"rack", *(f"p{number}" for number in range(99))}, FIELD)
    assert parse([]).names == frozenset()


NAMES = st.sampled_from([*sorted(HYPERVISOR_PROPERTIES), "rack", "gpus"])
TEXTS = st.text(st.characters(exclude_categories=["C"], exclude_characters=","), min_size=1, max_size=8)
OPERATORS = st.sampled_from(list(Operator))
WHOLE = st.integers(-(10**17), 10**17)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, str, str]:
    name = draw(NAMES)
    value = str(draw(WHOLE)) if name in NUMBERS else draw(TEXTS)
    return draw(OPERATORS), f"${name}", value


TREES = st.recursive(
    conditions().map(list),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda found: ["and", *found]),
    max_leaves=12,
)
FACTS = st.fixed_dictionaries(
    {name: WHOLE for name in sorted(NUMBERS)}, optional={"rack": TEXTS, "gpus": TEXTS, "id": TEXTS}
)


def leaves(tree: list[object]) -> list[list[object]]:
    return [leaf for each in tree[1:] for leaf in leaves(each)] if tree[0] == "and" else [tree]  # type: ignore[arg-type]


@given(TREES, FACTS)
def test_every_condition_of_a_tree_counts(tree: list[object], facts: dict[str, int | str]) -> None:
    whole = parse(tree)
    alone = [parse(leaf) for leaf in leaves(tree)]
    assert len(whole.conditions) == len(alone)
    assert whole.admit(facts) is all(each.admit(facts) for each in alone)
    assert whole.admit(facts) is (not whole.unmet(facts))


@given(NAMES.filter(lambda name: name not in NUMBERS), TEXTS, TEXTS)
def test_operators_agree_with_each_other(name: str, found: str, value: str) -> None:
    def holds(word: str) -> bool:
        return parse([word, f"${name}", value]).admit({name: found})

    assert holds("=") is holds("==") is not holds("!=")
    assert not (holds("<") and holds(">"))
    assert holds(">=") is (holds(">") or (holds("<=") and not holds("<")))
    if holds("="):
        assert holds(">=") and holds("<=") and holds("in")
    assert not any(parse([word, f"${name}", value]).admit({}) for word in Operator)


@given(WHOLE, WHOLE)
def test_numbers_compare_as_numbers(found: int, value: int) -> None:
    facts: HostFacts = {"vcpus": found, "gpus": str(found)}
    for name in ("vcpus", "gpus"):
        assert parse([">=", f"${name}", str(value)]).admit(facts) is (found >= value)
        assert parse(["<", f"${name}", str(value)]).admit(facts) is (found < value)
        assert parse(["=", f"${name}", str(value)]).admit(facts) is (found == value)


@given(st.text(max_size=200) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    try:
        found = parse_requirements(text, FIELD)
    except MalformedRequirements as refused:
        assert str(refused).startswith(FIELD)
    else:
        assert found.text == text

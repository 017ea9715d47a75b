"""The words of a target without pydantic: what is taken, what is refused, and that the line says why."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.drills.node.settings import DrilledNodeSettings, InjectorKind
from homeostat.drills.shipped.permissions import KINDS, FieldReader, read_permissions, read_profile
from homeostat.kernel.config import validate
from homeostat.kernel.errors import BadInput

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
KNOWN = ("enabled", "injectors", "writable_paths", "profiles")
WRITTEN = st.dictionaries(st.sampled_from(KNOWN) | st.text(), ANYTHING)


def test_good_words_are_taken_as_they_are_meant() -> None:
    words = FieldReader(
        {"a": "x", "n": 2, "w": 3, "c": [0, 1], "p": ["10.0.0.1", "::1"], "f": True, "m": {"i": 1}}
    )
    assert (words.needed("a", "x|y"), words.text("none"), words.number("n", 1, 0, 9)) == ("x", None, 2.0)
    assert (words.whole("w", 1, 1, 3), words.whole("none", 7, 1)) == (3, 7)
    assert (words.wholes("c"), words.wholes("none"), words.texts("none")) == ((0, 1), None, ())
    assert words.addresses("p") == (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("::1"))
    assert words.flag("f") and not words.flag("none")
    inner = words.words("m")
    assert inner is not None and inner.whole("i", 0, 0, 1) == 1
    words.end()


@pytest.mark.parametrize(
    ("given_words", "line"),
    [
        ({"text": 7}, "text: 7 is not accepted; it must be a text"),
        ({"number": float("nan")}, "number: nan is not accepted; it must be a number from 0 to 5"),
        ({"number": True}, "number: True is not accepted; it must be a number from 0 to 5"),
        ({"whole": 2.5}, "whole: 2.5 is not accepted; it must be a whole number, at least 1, at most 5"),
        ({"whole": 6}, "whole: 6 is not accepted; it must be a whole number, at least 1, at most 5"),
        ({"flag": "yes"}, "flag: 'yes' is not accepted; it must be true or false"),
        ({"wholes": [1, "2"]}, "wholes: '2' is not accepted; it must be a list of whole numbers"),
        ({"wholes": 1}, "wholes: 1 is not accepted; it must be a list of whole numbers"),
        (
            {"addresses": ["10.0.0.300"]},
            "addresses: '10.0.0.300' is not accepted; it must be a list of IP addr",
        ),
        ({"inner": 1}, "inner: 1 is not accepted; it must be a mapping"),
        ({"one": "c"}, "one: 'c' is not accepted; it must be one of a, b"),
        (
            {"txet": "x"},
            "txet: 'x' is not accepted; there is no such setting; known here: addresses, flag, in",
        ),
        ({"a_password": "x"}, "a_password: '(hidden)' is not accepted"),
    ],
)
def test_a_wrong_word_is_named_with_what_is_accepted(given_words: dict[str, object], line: str) -> None:
    with pytest.raises(BadInput) as error:
        words = FieldReader(given_words)
        words.text("text")
        words.number("number", 1, 0, 5)
        words.whole("whole", 1, 1, 5)
        words.flag("flag")
        words.wholes("wholes")
        words.addresses("addresses")
        words.words("inner")
        words.one_of("one", ("a", "b"), "a")
        words.end()
    assert str(error.value).startswith(line)


@given(ANYTHING | WRITTEN)
def test_whatever_a_host_has_written_is_read_or_refused(written: object) -> None:
    try:
        found = read_permissions("c1", "drills.json", Path("/state"), FieldReader(written))
    except BadInput as error:
        assert error.accepted
    else:
        assert found.enabled in (True, False) and set(found.injectors) <= set(KINDS)


@pytest.mark.parametrize(
    "words",
    [
        {"command_line": "x .*"},
        {"pid_file": "/run/x.pid", "shared": True},
        {"cgroup": "system.slice/x.service"},
        {"command_line": "("},
        {"command_line": "x", "cgroup": "y"},
        {"shared": True},
        {"shared": "maybe", "cgroup": "y"},
        {},
    ],
)
def test_a_profile_means_the_same_in_both_files(words: dict[str, object]) -> None:
    """The JSON of a host that is reached by SSH, and the node.yaml of one with a node process."""
    node = {"host": "n1", "state_dir": "/x", "drills": {"profiles": {"web": words}}}
    try:
        there = read_profile(FieldReader(words))
    except BadInput:
        with pytest.raises(BadInput):
            validate(DrilledNodeSettings, node)
    else:
        assert validate(DrilledNodeSettings, node).permitted().own == {"web": there}


def test_both_files_know_the_same_kinds() -> None:
    assert set(KINDS) == set(InjectorKind)

"""Tables for people: nothing empty, and no word in pieces where the terminal is narrow."""

from __future__ import annotations

import pytest

from homeostat.kernel.terminal import show_table


def test_a_column_without_a_value_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("host", "state", "held"), [{"host": "n1", "state": "up", "held": None}], "No hosts.")
    assert capsys.readouterr().out.split() == ["host", "state", "n1", "up"]


def test_a_table_that_is_too_wide_is_shown_as_records(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"host": "n1", "why": "w" * 90, "how": "h" * 90}, {"host": "n2", "why": "", "how": "by hand"}]
    show_table(("host", "why", "how"), rows, "No hosts.")
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "host  n1",
        f"why   {'w' * 90}",
        f"how   {'h' * 90}",
        "",
        "host  n2",
        "how   by hand",
    ]


def test_no_rows_are_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("host",), [], "No hosts.")
    assert capsys.readouterr().out == "No hosts.\n"


def test_longest_words_keep_their_room_and_the_rest_goes_to_who_needs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {"name": "n" * 70, "why": "one two three four five six seven eight " * 5, "at": "x"}
    show_table(("name", "why", "at"), [row], "Nothing.")
    said = capsys.readouterr().out
    assert "n" * 70 in said and max(map(len, said.splitlines())) <= 160
    assert set(said.split()) >= {"one", "three", "seven", "eight"}

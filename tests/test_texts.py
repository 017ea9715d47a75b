"""docs/texts.md: every text that users meet, made from the code, in the words of docs/glossary.md."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MADE = runpy.run_path(str(DOCS / "make_texts.py"))
TEXTS: dict[str, list[str]] = MADE["texts"]()

BANNED = re.compile(
    r"\b(rooms?|told|tells?|telling|tellings|harm|harmed|herald\w*|aftermath|foretold|boards?|endings|enrolment"
    r"|recollection|sightings?|forgotten)\b",
    re.IGNORECASE,
)
"""Words that were ours alone; docs/glossary.md has what is said instead."""
ORDINARY = re.compile(r"\b(make|no) room\b")
"""Free space on a disk, as everybody says it."""
ALLOWED = {
    "our own server was not told of the fault: {error}": "drills/running is rebuilt elsewhere at the moment",
    "the site's server was not told: {error}; `homeostat drill heal` once more when it answers": "so is this",
    "aftermath {host}": "the name of a task, in log lines and LoopCrashed events of older versions",
    "{path}: line {number} is not a sighting ({error})": "a file of a run, whose lines older versions wrote",
}
"""Texts that stay, and why: names that are stored or sent."""


def test_the_page_is_what_the_code_says() -> None:
    assert (DOCS / "texts.md").read_text() == MADE["page"](), "make docs"


@pytest.mark.parametrize("group", sorted(TEXTS))
def test_no_text_has_a_word_of_the_old_dialect(group: str) -> None:
    wrong = [
        text
        for text in TEXTS[group]
        if text not in ALLOWED and BANNED.search(re.sub(r"{[^{}]*}", "", ORDINARY.sub("", text)))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_a_text() -> None:
    known = {text for lines in TEXTS.values() for text in lines}
    assert ALLOWED.keys() <= known


def test_each_text_stands_once() -> None:
    lines = [text for group in TEXTS.values() for text in group]
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("Commands", "`homeostat status`: Set points: target, current value, state. Exits 1"),
        ("Command output", "No faults."),
        ("Reasons", "an operator holds this host"),
        ("Pages", "Mute notifications for a time."),
        ("Errors", "there is no fault {fault}, or it is not yours to read"),
        ("Log lines, warning and above", "second signal: exiting now"),
        ("API descriptions", "Set points: target, current value, state"),
        ("Notices, reports and other sentences", "Notice to {_whom} queued: {fault} {transition}"),
    ],
)
def test_a_text_of_each_kind_is_found(group: str, text: str) -> None:
    assert any(line.startswith(text) for line in TEXTS[group]), text


def test_the_glossary_has_one_sentence_for_each_word() -> None:
    rows = [
        line.split("|")[1:-1] for line in (DOCS / "glossary.md").read_text().splitlines() if line[:2] == "| "
    ]
    words = [row[0].strip() for row in rows if row[0].strip() != "word"]
    assert all(len(row) == 3 and row[1].strip() for row in rows)
    assert len(words) == len(set(words)) > 60

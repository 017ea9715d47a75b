"""ARCHITECTURE.md is the folders: its picture and table are what the imports say."""

from __future__ import annotations

import runpy
from pathlib import Path

MADE = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "make_architecture.py"))


def test_the_page_is_what_the_imports_say() -> None:
    assert MADE["page"]() == MADE["PAGE"].read_text(), "run `make docs`"


def test_what_follows_from_other_arrows_is_not_drawn() -> None:
    drawn = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert MADE["reduced"](drawn) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert MADE["layers"](drawn) == {"a": 2, "b": 1, "c": 0}

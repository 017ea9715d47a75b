"""A test whose engine is missing is left out and counted at the end, or fails where all are required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines import POSTGRESQL, names_an_engine, needs, summary

TESTS = Path(__file__).parent
TWO_TESTS = """
from engines import needs

@needs("nftables", "iptables")
def test_that_cuts_a_network():
    raise AssertionError("it ran")

def test_of_nothing_else():
    pass
"""


def run(folder: Path, *words: str, **environment: str) -> tuple[int, list[str]]:
    """Pytest on a machine without any program in PATH; its code and its lines."""
    (folder / "test_two.py").write_text(TWO_TESTS)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "conftest",
        "--rootdir",
        str(folder),
        "-q",
        *words,
        str(folder),
    ]
    kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_ENGINES"}
    said = subprocess.run(
        argv,
        cwd=folder,
        env={**kept, "PATH": "/none", "PYTHONPATH": str(TESTS), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return said.returncode, said.stdout.strip().splitlines()


def test_what_is_missing_is_left_out_and_the_last_lines_say_how_to_get_it(tmp_path: Path) -> None:
    code, lines = run(tmp_path)
    assert code == 0, lines
    assert lines[-4].startswith("Tests left out: 1 (")
    assert [line.split() for line in lines[-3:-1]] == [
        ["1", "nftables", "apt-get", "install", "nftables"],
        ["1", "iptables", "apt-get", "install", "iptables"],
    ]
    assert lines[-1].startswith("1 passed, 1 skipped")


def test_where_all_engines_are_required_a_missing_one_fails(tmp_path: Path) -> None:
    code, lines = run(tmp_path, REQUIRE_ENGINES="all")
    assert code == 1
    assert "REQUIRE_ENGINES=all, but this is missing: nftables: apt-get install nftables" in "\n".join(lines)


def test_only_those_that_name_an_engine_can_be_run(tmp_path: Path) -> None:
    code, lines = run(tmp_path, "--naming-engines")
    assert lines[-1].startswith("1 skipped, 1 deselected"), (code, lines)


def test_other_reasons_are_counted_too() -> None:
    said = summary(
        ["Skipped: left out, needs: root, mount", "Skipped: left out, needs: root", "Skipped: why not"]
    )
    assert [line.split()[:2] for line in said[1:]] == [["2", "root"], ["1", "mount"], ["1", "other"]]
    assert summary([]) == []


def test_an_engine_nobody_knows_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"not in tests/engines.py: oracle"):
        needs("oracle")


def test_the_cases_on_postgresql_are_there_on_every_machine() -> None:
    """They vanished without a word where it was missing."""
    assert POSTGRESQL.values == ("postgresql",)
    assert [(mark.name, mark.args) for mark in POSTGRESQL.marks] == [("engine", ("postgresql",))]


@pytest.mark.parametrize(
    ("text", "named"), [("os.geteuid() == 0", True), ("chromium()", True), ("host.root / 'x'", False)]
)
def test_a_test_names_an_engine_in_its_text(text: str, named: bool) -> None:
    assert names_an_engine(False, text) is named

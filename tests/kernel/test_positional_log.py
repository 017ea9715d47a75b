"""Lines that programs cut at blanks."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.faults.doctor_log import format_seconds, open_log


@pytest.mark.seed("002 field 10 of the line is the time in epoch seconds")
def test_the_tenth_word_is_the_time_and_files_go_on(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "doctor_monitor.log"
    for moment_ns in (1_479_655_943_120_000_999, 1_479_655_944_000_000_000):
        log = open_log(path)
        log.info("doctor monitor detected at %s", format_seconds(moment_ns))
        log.handlers[0].close()
    found = subprocess.run(
        ["awk", "{print $10}", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert found.split() == ["1479655943.120000", "1479655944.000000"]
    words = path.read_text().splitlines()[0].split()
    assert words[2:9] == [Path(__file__).name, words[3], "INFO", "doctor", "monitor", "detected", "at"]
    assert "doctor_monitor" not in logging.Logger.manager.loggerDict, "nobody else has it"


@given(st.integers(0, 2**62))
def test_a_moment_is_one_word_and_loses_less_than_a_microsecond(at_ns: int) -> None:
    whole, _, fraction = format_seconds(at_ns).partition(".")
    assert 0 <= at_ns - (int(whole) * 10**9 + int(fraction) * 1000) < 1000

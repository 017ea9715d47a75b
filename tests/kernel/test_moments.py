"""Moments on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from homeostat.kernel.clock import iso, to_wall_ns
from homeostat.kernel.errors import BadInput
from homeostat.kernel.terminal import parse_duration, parse_time, parse_time_or_age

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration("--in", text) == timedelta(seconds=seconds)
    assert parse_time_or_age("--since", text, NOW) == NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "2", "h", "2w", "-2h", "1.5h", "2 h", "9999999999s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadInput, match="--in"):
        parse_duration("--in", text)


def test_times() -> None:
    assert parse_time("--at", "2026-11-21T07:00:00Z") == datetime(2026, 11, 21, 7, tzinfo=UTC)
    assert parse_time("--at", "2026-11-21T07:00").tzinfo is not None
    assert parse_time_or_age("--since", "2026-11-21T07:00:00Z", NOW) == NOW - timedelta(hours=1)
    with pytest.raises(BadInput, match="a time such as"):
        parse_time("--at", "tomorrow")


@pytest.mark.parametrize("at_ns", [0, 1_000, -1_000, 1_700_000_000_123_456_000, 2**62 // 1000 * 1000])
def test_a_moment_is_exact(at_ns: int) -> None:
    assert to_wall_ns(datetime.fromisoformat(iso(at_ns))) == at_ns

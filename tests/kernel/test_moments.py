"""Moments on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from homeostat.kernel.clock import iso, wall_of
from homeostat.kernel.errors import BadInput
from homeostat.kernel.moments import ago_or_at, duration, moment

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)])
def test_durations(text: str, seconds: int) -> None:
    assert duration("--in", text) == timedelta(seconds=seconds)
    assert ago_or_at("--since", text, NOW) == NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "2", "h", "2w", "-2h", "1.5h", "2 h", "9999999999s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadInput, match="--in"):
        duration("--in", text)


def test_times() -> None:
    assert moment("--at", "2026-11-21T07:00:00Z") == datetime(2026, 11, 21, 7, tzinfo=UTC)
    assert moment("--at", "2026-11-21T07:00").tzinfo is not None
    assert ago_or_at("--since", "2026-11-21T07:00:00Z", NOW) == NOW - timedelta(hours=1)
    with pytest.raises(BadInput, match="a time such as"):
        moment("--at", "tomorrow")


@pytest.mark.parametrize("at_ns", [0, 1_000, -1_000, 1_700_000_000_123_456_000, 2**62 // 1000 * 1000])
def test_a_moment_is_exact(at_ns: int) -> None:
    assert wall_of(datetime.fromisoformat(iso(at_ns))) == at_ns

"""Moments and spans as people read them in sentences about reservations: UTC, to the minute, and hours."""

from __future__ import annotations

from datetime import UTC, datetime


def shown(at_s: float) -> str:
    """A UTC time stamp in seconds as `2026-12-01 14:00`."""
    return datetime.fromtimestamp(at_s, tz=UTC).strftime("%Y-%m-%d %H:%M")


def hours(count: int) -> str:
    """`1 hour`, `3 hours`."""
    return "1 hour" if count == 1 else f"{count} hours"

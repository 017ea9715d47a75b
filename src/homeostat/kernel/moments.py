"""Moments as people write them on a command line: a time of day with or without zone, or a duration. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from homeostat.kernel.errors import BadInput

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"^(\d{1,9})([smhd])$")


def duration(field: str, text: str) -> timedelta:
    """`90s`, `15m`, `2h`, `7d`; BadInput for anything else."""
    found = _DURATION.match(text)
    if found is None:
        raise BadInput(field, text, "a number and a unit: 90s, 15m, 2h or 7d")
    return timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])


def moment(field: str, text: str) -> datetime:
    """An ISO 8601 time; without a zone it is this machine's. BadInput for anything else."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise BadInput(field, text, "a time such as 2026-11-21T08:00 or 2026-11-21T07:00:00Z") from None


def ago_or_at(field: str, text: str, now: datetime) -> datetime:
    """A time, or a duration before `now`."""
    if _DURATION.match(text):
        return now - duration(field, text)
    try:
        return moment(field, text)
    except BadInput as error:
        raise BadInput(field, text, f"{error.accepted}, or 2h for two hours ago") from None

"""Durations and shares as a drill file has them: a number and a unit, never a bare number.

Pure; inside they are ms and parts of 1.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m)")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)%")
SPAN_ACCEPTED = "a number and a unit: 20ms, 4.5s or 2m"


def span_ms(value: object) -> float:
    """Milliseconds of `20ms`, `4.5s`, `2m`; ValueError for anything else, also for a bare number."""
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(SPAN_ACCEPTED)
    return float(Fraction(found[1]) * _UNITS_MS[found[2]])


def span_text(span: float) -> str:
    """The shortest of these words: 5000 -> `5s`."""
    unit = "m" if span >= 60_000 and span % 60_000 == 0 else "s" if span >= 1_000 else "ms"
    return f"{span / _UNITS_MS[unit]:.6f}".rstrip("0").rstrip(".") + unit


def share_of(value: object) -> float:
    """0.05 of `5%`; ValueError for anything else, also for a bare number."""
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a share: 5%")
    return float(Fraction(found[1]) / 100)


def share_text(share: float) -> str:
    """0.05 -> `5%`."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"


Span = Annotated[float, BeforeValidator(span_ms), PlainSerializer(span_text)]
Some = Annotated[Span, Field(gt=0)]
Share = Annotated[float, BeforeValidator(share_of), PlainSerializer(share_text), Field(gt=0, le=0.5)]

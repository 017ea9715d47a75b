"""Where the promises of notices stand: rows of `homeostat status`. Pure."""

from __future__ import annotations

from homeostat.contracts.nouns import SetPoint, Standing
from homeostat.notices.delivery import Figures

TOLD_WITHIN_MS = 1_000.0
"""Detection to consumer under one second (source: OPNFV Doctor, requirements, use case 1)."""


def set_points(figures: Figures) -> tuple[SetPoint, ...]:
    """The worst of the last 1000 notices that a consumer accepted, from their commit to its 2xx."""
    value = figures.slowest_ms
    if value is None:
        standing = Standing.UNKNOWN
    else:
        standing = Standing.KEPT if value <= TOLD_WITHIN_MS else Standing.BROKEN
    silent = len(figures.suspects)
    detail = f"{figures.waiting} waiting" + (f", {silent} subscriptions do not answer" if silent else "")
    return (
        SetPoint("notices", "a consumer is told of a fault", TOLD_WITHIN_MS, "ms", value, standing, detail),
    )

"""When the undo of a fault begins. Pure: the ledger, the last renewal and the moment are passed in."""

from __future__ import annotations

from typing import Optional

from .folder import Ledger

DEADLINE_S = 30.0


def due_ns(ledger: Ledger, renewed_ns: Optional[int], at_ns: int) -> int:
    """When the undo begins: a margin before the deadline, so that it ends in it.

    A renewal from the future counts as one of now. Pure.
    """
    last_ns = max(int(ledger["armed_ns"]), min(renewed_ns or 0, at_ns))
    return last_ns + int((float(ledger["deadline_s"]) - margin_s(ledger)) * 1e9)


def margin_s(ledger: Ledger) -> float:
    """How long the undo may take: a tenth of the deadline, at most 2 s; with programs what they say. Pure."""
    deadline_s = float(ledger["deadline_s"])
    takes_s = sum(float(step.get("takes_s", 0.0)) for step in ledger.get("steps", []) if "takes_s" in step)
    return max(min(2.0, deadline_s / 10), min(takes_s, deadline_s / 2))

"""Which layer an outage belongs to: the deepest one that was out at the same time. Pure.

A user's call needs the balancer and the back ends, too; that it failed says little of what failed.
"""

from __future__ import annotations

from homeostat.drills.model import Layer
from homeostat.drills.records.evidence import Evidence
from homeostat.monitors.outage import Episode

_DEPTH = {layer: depth for depth, layer in enumerate(Layer)}


def deepest(evidence: Evidence, monitor: str) -> str | None:
    """The layer to name for a monitor's longest episode; None when it had none."""
    outage = evidence.outage(monitor)
    longest = None if outage is None else outage.longest
    if longest is None:
        return None
    found = evidence.monitor(monitor).layer
    for each in evidence.plan.drill.monitors:
        if each.kind == "process" or _DEPTH[each.layer] >= _DEPTH[found]:
            continue
        other = evidence.outage(each.id)
        if other is not None and any(_together(longest, episode) for episode in other.episodes):
            found = each.layer
    return found.value


def _together(one: Episode, other: Episode) -> bool:
    """Whether both may have been out at one moment."""
    one_ends = float("inf") if one.until_ns is None else one.until_ns
    other_ends = float("inf") if other.until_ns is None else other.until_ns
    return one.after_ns < other_ends and other.after_ns < one_ends

"""What each monitor of a run saw, from its evidence, as records of the report. Pure."""

from __future__ import annotations

from typing import Any

from homeostat.drills.records.evidence import Evidence
from homeostat.monitors.outage import Outage

Record = dict[str, Any]
_NS_PER_MS = 1_000_000


def layer_records(evidence: Evidence, origin_ns: int | None) -> list[Record]:
    """One for each monitor, with moments in ms from `origin_ns`, the fault; None: there was none."""
    return [_layer(evidence, each.id, origin_ns) for each in evidence.plan.drill.monitors]


def _layer(evidence: Evidence, name: str, origin_ns: int | None) -> Record:
    monitor = evidence.monitor(name)
    outage: Outage | None = None
    if monitor.kind == "process":
        episodes = _missing(evidence, name)
        samples = len(evidence.sightings.get(name, ()))
    else:
        outage = None if origin_ns is None else evidence.outage(name)
        episodes = [] if outage is None or origin_ns is None else _episodes(outage, origin_ns)
        samples = len(evidence.samples.get(name, ()))
    before = outage.before if outage else None
    during = outage.during if outage else None
    return {
        "monitor": name,
        "layer": monitor.layer.value,
        "kind": monitor.kind,
        "episodes": episodes,
        "samples": samples,
        "back_ms": episodes[-1]["until_ms"] if episodes else None,
        "lateness_ms": outage.lateness_ms if outage else None,
        "before_p50_ms": before.p50_ms if before else None,
        "before_p99_ms": before.p99_ms if before else None,
        "during_p50_ms": during.p50_ms if during else None,
        "during_p99_ms": during.p99_ms if during else None,
    }


def _episodes(outage: Outage, origin_ns: int) -> list[Record]:
    return [
        {
            "from_ms": (each.after_ns - origin_ns) / _NS_PER_MS,
            "until_ms": None if each.until_ns is None else (each.until_ns - origin_ns) / _NS_PER_MS,
            "lower_ms": each.lower_ms,
            "upper_ms": each.upper_ms,
        }
        for each in outage.episodes
    ]


def _missing(evidence: Evidence, name: str) -> list[Record]:
    """The time without the whole set of processes, from the fault on."""
    outage = evidence.process(name)
    if outage is None or not outage.died:
        return []
    bounds = {"lower_ms": outage.lower_ms, "upper_ms": outage.upper_ms}
    return [{"from_ms": 0.0, "until_ms": outage.upper_ms, **bounds}]

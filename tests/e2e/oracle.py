"""Compares what the injector did with what the consumer heard. Knows nothing else of Homeostat."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

NANO = 1_000_000_000
SEEN_WITHIN_S = 5.0
STAMP_NS = 2_000
"""Notices carry microseconds, through a float; the injector nanoseconds."""
"""A fault's own stamp lies at most this long after the kill: the death was seen, whenever it was told."""


@dataclass(frozen=True)
class Verdict:
    """`wrong` is empty when every outage has exactly one raised and one cleared key."""

    injected: int
    raised: int
    cleared: int
    repeats: int
    wrong: tuple[str, ...]


def compare(injected: Path, heard: Path, subscription: str) -> Verdict:
    """Each injected kill has one raised and one cleared key at the consumer; nothing else was told."""
    kills: dict[str, list[int]] = defaultdict(list)
    for line in injected.read_text().splitlines():
        entry = json.loads(line)
        kills[f"resource/{entry['resource']}"].append(entry["at_ns"])
    wrong: list[str] = []
    bodies, times = {}, Counter[str]()
    for line in heard.read_text().splitlines():
        entry = json.loads(line)
        if entry["status"] != 200:
            wrong.append(f"the consumer refused a request: {entry}")
            continue
        body = entry["body"]
        if body["notice"].startswith(f"{subscription}:") and body["fault"]["about"].startswith("resource/"):
            bodies[body["notice"]] = body
            times[body["notice"]] += 1
    raised: dict[str, list[tuple[int, str]]] = defaultdict(list)
    cleared = {body["fault"]["id"] for body in bodies.values() if body["transition"] == "cleared"}
    for body in bodies.values():
        if body["transition"] == "raised":
            at = datetime.fromisoformat(body["fault"]["raised_at"])
            raised[body["fault"]["about"]].append((round(at.timestamp() * NANO), body["fault"]["id"]))
    for about in sorted(kills.keys() | raised.keys()):
        told, done = sorted(raised[about]), sorted(kills[about])
        if len(told) != len(done):
            wrong.append(f"{about}: killed {len(done)} times, raised {len(told)} times")
            continue
        for (told_ns, fault), killed_ns in zip(told, done, strict=True):
            if not -STAMP_NS <= told_ns - killed_ns <= SEEN_WITHIN_S * NANO:
                wrong.append(f"{about}: fault {fault} is {(told_ns - killed_ns) / 1e9:.3f} s from the kill")
            if fault not in cleared:
                wrong.append(f"{about}: fault {fault} was never cleared")
    return Verdict(
        sum(map(len, kills.values())),
        sum(map(len, raised.values())),
        len(cleared),
        sum(count - 1 for count in times.values()),
        tuple(wrong),
    )

"""Compares what the injector did with what the consumer heard. Knows nothing else of Homeostat."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

NANO = 1_000_000_000
SAME_NS = NANO
"""A kill so soon after the beginning of an outage is the one that began it."""
STAMP_NS = 2_000
"""Notices carry microseconds, through a float; the injector nanoseconds."""


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
    bodies, repeats, wrong = read(heard, subscription)
    order = [(body["fault"]["id"], body["transition"]) for body in bodies]
    raised: dict[str, list[tuple[int, str]]] = defaultdict(list)
    outages: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for body in bodies:
        if body["transition"] == "raised":
            at = datetime.fromisoformat(body["fault"]["raised_at"])
            raised[body["fault"]["about"]].append((round(at.timestamp() * NANO), body["fault"]["id"]))
        elif body["transition"] == "cleared":
            ends = (datetime.fromisoformat(body["fault"][name]) for name in ("raised_at", "cleared_at"))
            begun, over = (round(at.timestamp() * NANO) for at in ends)
            outages[body["fault"]["about"]].append((begun, over))
    for about in sorted(kills.keys() | raised.keys()):
        # Started again and killed again before its node could see it up, for that one was dead: one outage.
        kills[about] = [at for at in kills[about] if not any(a + SAME_NS < at < b for a, b in outages[about])]
        wrong += judge(about, sorted(kills[about]), sorted(raised[about]), order)
    return Verdict(
        sum(map(len, kills.values())),
        sum(map(len, raised.values())),
        sum(transition == "cleared" for _, transition in order),
        repeats,
        tuple(wrong),
    )


def compare_hosts(killed: Counter[tuple[str, str]], heard: Path, subscription: str) -> list[str]:
    """What is wrong with what was told of node processes and hosts. `killed` counts (kind of fault, host):
    each kill has one raised and one cleared key, and nothing else was told."""
    bodies, _, wrong = read(heard, subscription, "node/")
    told: dict[tuple[str, str], list[str]] = defaultdict(list)
    order: dict[str, list[str]] = defaultdict(list)
    for body in bodies:
        fault = body["fault"]
        order[fault["id"]].append(body["transition"])
        if body["transition"] == "raised":
            told[fault["kind"], fault["about"].removeprefix("node/")].append(fault["id"])
    for which in sorted(killed.keys() | told.keys()):
        if len(told[which]) != killed[which]:
            wrong.append(f"{which}: killed {killed[which]} times, raised {len(told[which])} times")
    wrong += [f"fault {each}: told {said}" for each, said in order.items() if said != ["raised", "cleared"]]
    return wrong


def read(
    heard: Path, subscription: str, about: str = "resource/"
) -> tuple[list[dict[str, Any]], int, list[str]]:
    """What a subscription heard of such subjects, each key once, in order; repeats; what was refused."""
    bodies: dict[str, dict[str, Any]] = {}
    repeats, refused = 0, []
    for line in heard.read_text().splitlines():
        entry = json.loads(line)
        if entry["status"] != 200:
            refused.append(f"the consumer refused a request: {entry}")
            continue
        body = entry["body"]
        if body["notice"].startswith(f"{subscription}:") and body["fault"]["about"].startswith(about):
            repeats += body["notice"] in bodies
            bodies.setdefault(body["notice"], body)
    return list(bodies.values()), repeats, refused


def judge(
    about: str, killed: list[int], raised: list[tuple[int, str]], order: list[tuple[str, str]]
) -> list[str]:
    """What is wrong with what was told of one resource."""
    if len(raised) != len(killed):
        return [f"{about}: killed {len(killed)} times, raised {len(raised)} times"]
    wrong = []
    # A node process that was killed too sees the death after its own start: late on a busy machine, but never
    # before it, and before the next one.
    until = [*killed[1:], math.inf]
    for (told_ns, fault), killed_ns, next_ns in zip(raised, killed, until, strict=True):
        if not -STAMP_NS <= told_ns - killed_ns < next_ns - killed_ns:
            wrong.append(f"{about}: fault {fault} is {(told_ns - killed_ns) / 1e9:.3f} s from the kill")
        if (fault, "cleared") not in order:
            wrong.append(f"{about}: fault {fault} was never cleared")
        elif order.index((fault, "cleared")) < order.index((fault, "raised")):
            wrong.append(f"{about}: fault {fault} was told cleared before it was told raised")
    return wrong

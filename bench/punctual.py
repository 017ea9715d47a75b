"""How late leases start while the end of another hangs: Homeostat beside Blazar 18's own event loop.

    make bench B=punctual       about five minutes; QUICK=1 under one

A lease ends at moment 0, and its end hangs (at the peer: nova does not delete a server of its host). Within the
minute after it 200 other leases start, on hosts of their own: spread evenly over the minute, and all at one moment. A
start is late by what lies between its moment and its being done: ours, the commit of the lease as ACTIVE, by the
wall clock of this machine; at the peer, the call of its plug-in's `on_start`, which is earlier.

Blazar looks for events every 10 s, which is a constant of its code, and waits up to ten minutes for a server to go; here
the server goes after `hang_s`, so that its lateness is a lower bound that grows with that figure.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from heal_ours import HORIZON_S, Hang, started_late_s
from heal_peer import Blazar, blazar, install_peer
from heal_sites import Host, Reservation, Site
from told import flush_ms

QUICK = bool(os.environ.get("QUICK"))
RESULT = Path(__file__).parent / "results" / ("punctual-quick.json" if QUICK else "punctual.json")
LEASES, OVER_S = (30, 6) if QUICK else (200, 60)
HANG_S = 8 if QUICK else 90
LEAD_S = 3 if QUICK else 10
OTHERS = 100 if QUICK else 1_000
"""Leases that begin days later, as there are many in a site."""
TARGET_S = 1.0
STUCK = "stuck"


def due(*, spread: bool) -> Site:
    """Each lease has a host of its own; the one that ends has the first."""
    site = Site([Host(number, 16, 65536, 1000) for number in range(1, LEASES + 2)])
    site.reservations.append(Reservation(STUCK, -600, 0, [1]))
    for number in range(LEASES):
        start_s = 1 + (number * OVER_S / LEASES if spread else OVER_S / 2)
        site.reservations.append(Reservation(f"l{number}", start_s, start_s + 3600, [number + 2]))
    for number in range(OTHERS):
        start_s = HORIZON_S * (1 + number // LEASES)
        site.reservations.append(Reservation(f"o{number}", start_s, start_s + 3600, [number % LEASES + 2]))
    return site


def peer_starts(peer: Blazar, site: Site) -> tuple[list[float], float]:
    """How late each lease was, and the CPU seconds of the manager."""
    until_s = OVER_S + HANG_S + 600
    job = {
        "do": "events",
        "site": site.as_json(),
        "stuck": "h1",
        "hang_s": HANG_S,
        "lead_s": LEAD_S,
        "horizon_s": HORIZON_S,
        "until_s": until_s,
    }
    found = peer.ask(job)
    if found["never"]:
        raise SystemExit(f"bench: {found['never']} leases never started at the peer in {until_s} s")
    return found["late_s"], found["cpu_s"]


def row(what: str, how: str, late_s: list[float], cpu_s: float) -> dict[str, object]:
    """One line. A p99 of fewer than 100 is the worst of them."""
    ordered = sorted(late_s)
    return {
        "what": what, "starts": how, "repetitions": len(ordered), "p50_ms": round(statistics.median(ordered) * 1e3, 1),
        "p99_ms": round(ordered[math.ceil(0.99 * len(ordered)) - 1] * 1e3, 1), "max_ms": round(ordered[-1] * 1e3, 1),
        "cpu_s": round(cpu_s, 3), "late_ms": [round(each * 1e3, 1) for each in late_s],
    }  # fmt: skip


async def measure(folder: Path, version: str) -> dict[str, object]:
    """All of it, one side after the other: a start is a moment, and two cores are few."""
    flush, load = flush_ms(folder), os.getloadavg()[0]
    rows = []
    with blazar(folder) as peer:
        for how in ("at one moment",) if QUICK else ("spread", "at one moment"):
            site = due(spread=how == "spread")
            for what in ("homeostat", "Blazar"):
                print(f"{what}, {how} ...", file=sys.stderr)
                if what == "Blazar":
                    late_s, cpu_s = await asyncio.to_thread(peer_starts, peer, site)
                else:
                    late_s, cpu_s = await started_late_s(
                        folder / how.replace(" ", "-"), site, Hang(STUCK, HANG_S, LEAD_S)
                    )
                rows.append(row(what, how, late_s, cpu_s))
    flush += flush_ms(folder)
    ours = [each for each in rows if each["what"] == "homeostat"]
    return {
        "name": "punctual", "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "work": {"quick": QUICK, "peer": version, "leases": LEASES, "over_s": OVER_S, "hang_s": HANG_S, "others": OTHERS},
        "machine": {
            "cores": os.cpu_count(), "load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1),
            "flush_p50_ms": round(statistics.median(flush), 3),
            "flush_p99_ms": round(sorted(flush)[math.ceil(0.99 * len(flush)) - 1], 3),
        },
        "rows": rows,
        "ratios": {
            f"p99 of Blazar to ours, {mine['starts']}": round(theirs["p99_ms"] / mine["p99_ms"], 1)  # type: ignore[operator]
            for mine in ours
            for theirs in rows
            if theirs["what"] == "Blazar" and theirs["starts"] == mine["starts"]
        },
        "promises": [
            {"what": f"{LEASES} leases start while an end hangs, {mine['starts']}: p99 late, ms", "target": TARGET_S * 1e3,
             "measured": mine["p99_ms"], "met": mine["p99_ms"] < TARGET_S * 1e3}  # type: ignore[operator]
            for mine in ours
        ],
    }  # fmt: skip


def show(result: dict[str, object]) -> None:
    """A table for people."""
    print(f"\n{'':12}{'starts':16}{'n':>5}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}{'CPU s':>8}")
    for each in result["rows"]:  # type: ignore[attr-defined]
        print(
            f"{each['what']:12}{each['starts']:16}{each['repetitions']:>5}{each['p50_ms']:>10}{each['p99_ms']:>10}"
            f"{each['max_ms']:>10}{each['cpu_s']:>8}"
        )
    for each in result["promises"]:  # type: ignore[attr-defined]
        print(
            f"{'met   ' if each['met'] else 'MISSED'} {each['measured']:>8} of {each['target']:<6} {each['what']}"
        )
    print(f"machine: {result['machine']}; written to {RESULT}")


def main() -> None:
    """Measure, write, show."""
    began_s, version = time.monotonic(), install_peer()
    with tempfile.TemporaryDirectory() as name:
        result = asyncio.run(measure(Path(name), version))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    print(f"took {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("bench: stopped") from None

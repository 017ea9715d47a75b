"""From the moment a host is known to be dead to the moment its consumers have read it, however many guests it ran.

    make bench B=notice         about ten minutes; QUICK=1 under one

Ours: a real server process with real NATS and SQLite, played hosts (`notice_cloud.py`) that die one after the
other, a lean consumer process (`notice_consumer.py`). The time begins with the stamp that the server itself puts
on the decision, before it weighs the evidence (CLOCK_REALTIME, in the journal), and ends when the consumer has
read the whole body (CLOCK_REALTIME of the same machine; CLOCK_BOOTTIME is taken beside it and shows that the
clock was not stepped meanwhile). In between: the decision, who is affected, a commit that is flushed to the disk,
rendering, signing, HTTP. Not in it: how long it takes to suspect a host; that is what the probes are set to.

    (i)  all guests belong to one project, which has 1 or 10 consumers: one notice each
    (ii) every guest belongs to a project of its own, each with its own subscription: as many notices as guests

Beside it, interleaved on the same machine (`notice_peers.py`): the serial inspector of OPNFV Doctor's 2016 sample
at 0, 25 and 250 ms a call of nova's, and Debian's prometheus-alertmanager with `group_wait: 0s`. Neither flushes
anything to a disk. A p99 of fewer than 100 repetitions is the worst of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import uvloop
from notice_cloud import (
    SETTINGS,
    Consumers,
    Heard,
    Host,
    Server,
    burning,
    child,
    consumers,
    free_port,
    running,
)
from notice_peers import alertmanager, doctor
from told import flush_ms

from homeostat.contracts.nouns import ResourceState

QUICK = bool(os.environ.get("QUICK"))
PEER = "prometheus-alertmanager"
RESULT = Path(__file__).parent / "results" / ("notice-quick.json" if QUICK else "notice.json")
SIZES = (1, 10, 100, 1_000, 10_000)
CONSUMERS = 10
STORM = 1_000
# Repetitions by guests. The full run has what a p99 needs at every size of the gate but the largest.
ONE = dict(zip(SIZES, (3, 2, 2, 2, 2) if QUICK else (110, 100, 100, 110, 60), strict=True))
TEN = dict(zip(SIZES, (1, 0, 0, 1, 0) if QUICK else (20,) * 5, strict=True))
APART = dict(zip(SIZES, (2, 1, 1, 1, 0) if QUICK else (30, 20, 20, 20, 3), strict=True))
APART_TEN = dict(zip(SIZES, (0, 0, 0, 1, 0) if QUICK else (10, 10, 10, 10, 0), strict=True))
BURNING = {1: 2, 1_000: 2} if QUICK else {1: 30, 1_000: 30}
STORMS = 2 if QUICK else 8
ALERTS = dict(zip(SIZES, (2, 1, 1, 1, 1) if QUICK else (20, 20, 20, 20, 5), strict=True))
ALERTS_APART = dict(zip(SIZES, (2, 1, 1, 1, 0) if QUICK else (20, 20, 20, 5, 1), strict=True))
# One call after the other takes guests x call: what would take longer than half a minute is not run.
SERIAL = {
    0: {1: 2, 100: 2, 1_000: 1} if QUICK else {1: 10, 10: 10, 100: 10, 1_000: 5, 10_000: 2},
    25: {1: 2, 10: 1} if QUICK else {1: 5, 10: 5, 100: 2, 1_000: 1},
    250: {1: 1} if QUICK else {1: 3, 10: 2, 100: 1},
}


@dataclass
class Row:
    """One line of the table; a repetition is `wall_ms`. `cpu_s` and `memory_mb` are of the process named in `of`."""

    what: str
    guests: int
    consumers: int
    of: str = "homeostat server"
    wall_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    pending: list[tuple[str, int]] = field(default_factory=list)
    """Fault and when it was last told, until the journal has said when it was decided."""

    @property
    def p50_ms(self) -> float:
        """The median."""
        return statistics.median(self.wall_ms)

    @property
    def p99_ms(self) -> float:
        """Of fewer than 100: the worst."""
        return sorted(self.wall_ms)[math.ceil(0.99 * len(self.wall_ms)) - 1]

    def as_json(self) -> dict[str, object]:
        """For the file."""
        return {
            "what": self.what, "guests": self.guests, "consumers": self.consumers,
            "repetitions": len(self.wall_ms), "p50_ms": round(self.p50_ms, 2), "p99_ms": round(self.p99_ms, 2),
            "max_ms": round(max(self.wall_ms), 2), "of": self.of, "cpu_s": round(self.cpu_s, 3),
            "memory_mb": round(self.memory_mb, 1), "wall_ms": [round(each, 2) for each in self.wall_ms],
        }  # fmt: skip


@dataclass
class Bench:
    """What is measured so far, and what it is measured with."""

    heard: Consumers
    rows: dict[tuple[str, int, int], Row] = field(default_factory=dict)

    def row(self, what: str, guests: int, of_consumers: int, of: str = "homeostat server") -> Row:
        """The line of this name, made when it is new."""
        return self.rows.setdefault((what, guests, of_consumers), Row(what, guests, of_consumers, of))

    async def death(self, server: Server, host: Host, row: Row, notices: int) -> None:
        """One host dies, is told, comes back, is told again."""
        self.heard.forget()
        cpu_s = server.cpu_s()
        await server.cloud.kill(host)
        told = await self.heard.until(notices, ":raised")
        row.cpu_s += server.cpu_s() - cpu_s
        row.pending.append(_last(told))
        row.memory_mb = max(row.memory_mb, server.memory_mb())
        await server.cloud.revive(host)
        await self.heard.until(notices, ":cleared")

    async def storm(self, server: Server, host: Host, row: Row) -> None:
        """Everything on a living host fails at once: as many faults as guests, all told to one consumer."""
        self.heard.forget()
        changed = host.change(ResourceState.DOWN)
        cpu_s, began_ns = server.cpu_s(), time.time_ns()
        await server.cloud.report(host, changed)
        told = await self.heard.until(host.guests, ":raised")
        row.cpu_s += server.cpu_s() - cpu_s
        row.memory_mb = max(row.memory_mb, server.memory_mb())
        row.wall_ms.append((max(each.wall_ns for each in told) - began_ns) / 1e6)
        await server.cloud.report(host, host.change(ResourceState.UP))
        await self.heard.until(host.guests, ":cleared")
        await asyncio.sleep(0.5)  # its outcomes are written, the next storm begins at rest

    def settle(self, server: Server) -> None:
        """Turn what is pending into times, with the stamps of the journal."""
        stamps = server.stamps({fault for row in self.rows.values() for fault, _ in row.pending})
        for row in self.rows.values():
            row.wall_ms += [(told_ns - stamps[fault]) / 1e6 for fault, told_ns in row.pending]
            row.pending.clear()


def _last(told: list[Heard]) -> tuple[str, int]:
    if len({each.fault for each in told}) != 1:
        raise SystemExit(
            f"bench: {len({each.fault for each in told})} faults were told at once instead of one"
        )
    return told[0].fault, max(each.wall_ns for each in told)


Step = Callable[[], Awaitable[None]]


async def interleaved(name: str, work: list[tuple[Step, int]]) -> None:
    """Every step as often as it says, each spread evenly over the whole."""
    order = sorted(
        ((turn + 0.5) / count, index) for index, (_, count) in enumerate(work) for turn in range(count)
    )
    for done, (_, index) in enumerate(order):
        print(f"\r{name}: {done + 1} of {len(order)} ", end="", file=sys.stderr, flush=True)
        await work[index][0]()
    print(file=sys.stderr)


# ---- the peers ----


@contextmanager
def running_alertmanager(folder: Path, consumer: int) -> Iterator[tuple[int, int]]:
    """A running Alertmanager: its port and pid. A group a host; it says more of a group every 100 ms."""
    port = free_port()
    config = folder / "alertmanager.yml"
    config.write_text(
        "route: {receiver: hook, group_by: [host], group_wait: 0s, group_interval: 100ms, repeat_interval: 1h}\n"
        "receivers: [{name: hook, webhook_configs: "
        f"[{{send_resolved: false, url: 'http://127.0.0.1:{consumer}/'}}]}}]\n"
    )
    argv = [PEER, f"--config.file={config}", f"--storage.path={folder}/am", "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with child(argv, folder / "am.log") as process:
        until_s = time.monotonic() + 30
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1),
            ):
                break
            if time.monotonic() > until_s or process.poll() is not None:
                raise SystemExit(f"bench: {PEER} does not start\n{(folder / 'am.log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield port, process.pid


@dataclass
class Peers:
    """Those who run beside us."""

    bench: Bench
    nova_port: int
    nova_pid: int
    alertmanager_port: int
    alertmanager_pid: int
    consumer: int
    number: int = 0

    async def serial(self, guests: int, call_ms: int) -> None:
        """Doctor's sample: one reset after the other, each told by itself; until the last is told."""
        row = self.bench.row(f"Doctor 2016, {call_ms} ms a call", guests, 1, "stand-in for nova")
        heard = self.bench.heard
        heard.forget()
        cpu_s = _cpu_s(self.nova_pid)
        servers = [f"server-{number:05}" for number in range(guests)]
        began_ns = await asyncio.to_thread(doctor, self.nova_port, servers, call_ms)
        told = await heard.until(guests, "-")
        row.wall_ms.append((max(each.wall_ns for each in told) - began_ns) / 1e6)
        row.cpu_s += _cpu_s(self.nova_pid) - cpu_s
        row.memory_mb = psutil.Process(self.nova_pid).memory_info().rss / 1e6

    async def alerts(self, guests: int, *, apart: bool) -> None:
        """One POST with an alert a guest; until the consumer has read of all of them."""
        row = self.bench.row(
            f"Alertmanager, {'a group a guest' if apart else 'a group a host'}", guests, 1, PEER
        )
        heard = self.bench.heard
        heard.forget()
        self.number += 1
        cpu_s = _cpu_s(self.alertmanager_pid)
        group = f"host-{self.number}"
        post = asyncio.to_thread(alertmanager, self.alertmanager_port, group, guests, ends=False, apart=apart)
        began_ns = await post
        told = await heard.alerts(self.consumer, guests)
        row.wall_ms.append((told.wall_ns - began_ns) / 1e6)
        row.cpu_s += _cpu_s(self.alertmanager_pid) - cpu_s
        row.memory_mb = psutil.Process(self.alertmanager_pid).memory_info().rss / 1e6
        await asyncio.to_thread(alertmanager, self.alertmanager_port, group, guests, ends=True, apart=apart)
        await asyncio.sleep(0.25)  # until its groups are gone, or they would wake up beside what comes next

    def work(self) -> list[tuple[Step, int]]:
        """All of it."""
        found: list[tuple[Step, int]] = []
        for call_ms, counts in SERIAL.items():
            found += [
                (lambda g=guests, c=call_ms: self.serial(g, c), count) for guests, count in counts.items()
            ]  # type: ignore[misc]
        for apart, counts in ((False, ALERTS), (True, ALERTS_APART)):
            found += [
                (lambda g=guests, a=apart: self.alerts(g, apart=a), count) for guests, count in counts.items()
            ]  # type: ignore[misc]
        return found


def _cpu_s(pid: int) -> float:
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


# ---- ours ----


async def one_owner(bench: Bench, folder: Path, peers: Peers) -> None:
    """(i), both cores burning, the storm; and the peers in between."""
    ports = bench.heard.ports
    hosts = [Host(f"one-{guests}", guests, ("one",)) for guests in SIZES]
    hosts += [Host(f"ten-{guests}", guests, ("ten",)) for guests in SIZES if TEN[guests]]
    hosts += [
        Host("storm", STORM, ("storm",)),
        *(Host(f"calm-{number}", 1, ("calm",)) for number in range(4)),
    ]
    subscriptions = [("one", "one", ports[0]), ("storm", "storm", ports[0])]
    subscriptions += [(f"ten-{number}", "ten", port) for number, port in enumerate(ports)]
    async with running(folder / "one", hosts, subscriptions) as server:
        by_name = server.cloud.hosts

        def dies(owner: str, guests: int, what: str, notices: int) -> Step:
            row = bench.row(what, guests, notices)
            return lambda: bench.death(server, by_name[f"{owner}-{guests}"], row, notices)

        # The first connections to each consumer, the first large body, everything that is imported late.
        await dies("one", max(SIZES), "warm-up", 1)()
        for _ in range(2):
            await dies("ten", 1, "warm-up", CONSUMERS)()
        work = [(dies("one", guests, "(i) one owner", 1), count) for guests, count in ONE.items() if count]
        work += [
            (dies("ten", guests, "(i) one owner", CONSUMERS), count) for guests, count in TEN.items() if count
        ]
        await interleaved("one owner, and the peers", [*work, *peers.work()])
        bench.settle(server)
        await interleaved(
            "1 000 faults at once",
            [
                (
                    lambda: bench.storm(
                        server, by_name["storm"], bench.row("1 000 faults at once", STORM, 1)
                    ),
                    STORMS,
                )
            ],
        )
        with burning(2 * (os.cpu_count() or 1)):
            work = [
                (dies("one", guests, "(i) both cores burning", 1), count) for guests, count in BURNING.items()
            ]
            await interleaved("both cores burning", work)
        bench.settle(server)


async def owner_a_guest(bench: Bench, folder: Path) -> None:
    """(ii): a project, a subscription and a notice for every guest."""
    sizes = [guests for guests in SIZES if APART[guests] or APART_TEN[guests]]
    most, ports = max(sizes), bench.heard.ports
    alone = [f"a-{number:05}" for number in range(most)]
    spread = [f"t-{number:05}" for number in range(max((g for g in sizes if APART_TEN[g]), default=0))]
    hosts = [Host(f"alone-{guests}", guests, tuple(alone[:guests])) for guests in sizes if APART[guests]]
    hosts += [
        Host(f"spread-{guests}", guests, tuple(spread[:guests])) for guests in sizes if APART_TEN[guests]
    ]
    hosts += [Host(f"calm-{number}", 1, ("calm",)) for number in range(4)]
    subscriptions = [(owner, owner, ports[0]) for owner in alone]
    subscriptions += [(owner, owner, ports[number % CONSUMERS]) for number, owner in enumerate(spread)]
    async with running(folder / "apart", hosts, subscriptions) as server:

        def dies(kind: str, guests: int, of_consumers: int) -> Step:
            row = bench.row("(ii) an owner a guest", guests, of_consumers)
            return lambda: bench.death(server, server.cloud.hosts[f"{kind}-{guests}"], row, guests)

        work = [(dies("alone", guests, 1), APART[guests]) for guests in sizes if APART[guests]]
        work += [
            (dies("spread", guests, CONSUMERS), APART_TEN[guests]) for guests in sizes if APART_TEN[guests]
        ]
        await interleaved("an owner a guest", work)
        bench.settle(server)


# ---- the result ----


def promises(rows: dict[tuple[str, int, int], Row], flush_p50_ms: float) -> list[dict[str, object]]:
    """The gate, line by line."""
    found: list[dict[str, object]] = []

    def promise(what: str, target: float, measured: float) -> None:
        found.append(
            {
                "what": what,
                "target": round(target, 2),
                "measured": round(measured, 2),
                "met": measured <= target,
            }
        )

    main = {guests: rows["(i) one owner", guests, 1] for guests in SIZES}
    for guests in SIZES[:-1]:
        named = f"{guests} guests of one owner, one consumer"
        promise(f"{named}: median ms, 5 and two flushes", 5 + 2 * flush_p50_ms, main[guests].p50_ms)
        promise(f"{named}: p99 ms", 15, main[guests].p99_ms)
    promise("10000 guests: median ms more than with 1", 8, main[10_000].p50_ms - main[1].p50_ms)
    for guests in BURNING:
        promise(
            f"both cores burning, {guests} guests: median ms",
            12,
            rows["(i) both cores burning", guests, 1].p50_ms,
        )
    promise(
        "1000 faults at once: last told, ms, worst repetition",
        300,
        max(rows["1 000 faults at once", STORM, 1].wall_ms),
    )
    return found


def ratios(rows: dict[tuple[str, int, int], Row]) -> dict[str, float]:
    """How much longer the peers take, by median; above 1 is in our favour."""
    found = {}
    for (what, guests, _), row in rows.items():
        if row.of != "homeostat server":
            ours = rows.get(("(ii) an owner a guest" if "guest" in what else "(i) one owner", guests, 1))
            if ours is not None:
                found[f"{what} to ours, {guests} guests"] = round(row.p50_ms / ours.p50_ms, 2)
    return found


def report(bench: Bench, flush: list[float], loads: tuple[float, float], version: str) -> dict[str, object]:
    """What is written."""
    rows = {key: row for key, row in bench.rows.items() if row.what != "warm-up"}
    flush_p50_ms = statistics.median(flush)
    return {
        "name": "notice",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "work": {
            "quick": QUICK, "sizes": SIZES, "settings": SETTINGS, "peer": version,
            "detected": "at_ns of FaultRaised in the journal, CLOCK_REALTIME, taken before the evidence is weighed",
            "storm began": "CLOCK_REALTIME of the played node, right before its one message",
            "told": "CLOCK_REALTIME of the consumer process when the last byte of the body is read",
            "clock_stepped_ms": round(bench.heard.stepped_ns / 1e6, 3),
        },
        "machine": {
            "cores": os.cpu_count(), "load_before": loads[0], "load_after": loads[1],
            "flush_p50_ms": round(flush_p50_ms, 3),
            "flush_p99_ms": round(sorted(flush)[math.ceil(0.99 * len(flush)) - 1], 3),
        },
        "rows": [row.as_json() for row in rows.values()],
        "ratios": ratios(rows),
        "promises": promises(rows, flush_p50_ms),
    }  # fmt: skip


def show(result: dict[str, object]) -> None:
    """A table for people."""
    print(f"\n{'':34}{'guests':>7}{'consumers':>10}{'n':>5}{'p50 ms':>10}{'p99 ms':>10}{'CPU s':>8}{'MB':>7}")
    for row in result["rows"]:  # type: ignore[attr-defined]
        print(
            f"{row['what']:34}{row['guests']:>7}{row['consumers']:>10}{row['repetitions']:>5}{row['p50_ms']:>10}"
            f"{row['p99_ms']:>10}{row['cpu_s']:>8}{row['memory_mb']:>7.0f}"
        )
    for each in result["promises"]:  # type: ignore[attr-defined]
        print(
            f"{'met   ' if each['met'] else 'MISSED'} {each['measured']:>8} of {each['target']:<6} {each['what']}"
        )
    print(f"machine: {result['machine']}; written to {RESULT}")


async def measure(folder: Path) -> dict[str, object]:
    """All of it."""
    said = subprocess.run([PEER, "--version"], capture_output=True, text=True, check=True)
    flush, load = flush_ms(folder), os.getloadavg()[0]
    async with consumers(CONSUMERS) as heard:
        bench = Bench(heard)
        nova = [sys.executable, str(Path(__file__).with_name("notice_peers.py")), str(heard.ports[0])]
        with child(nova) as process, running_alertmanager(folder, heard.ports[0]) as (port, pid):
            assert process.stdout is not None
            nova_port = int(process.stdout.readline())
            await one_owner(bench, folder, Peers(bench, nova_port, process.pid, port, pid, heard.ports[0]))
        await owner_a_guest(bench, folder)
        flush += flush_ms(folder)
        version = (said.stdout + said.stderr).splitlines()[0]
        return report(bench, flush, (load, os.getloadavg()[0]), version)


async def main() -> None:
    """Measure, write, show; stop cleanly when asked to."""
    if shutil.which(PEER) is None:
        raise SystemExit(f"bench: the peer is not here; apt-get install {PEER}")
    measuring = asyncio.current_task()
    assert measuring is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, measuring.cancel)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        result = await measure(Path(name))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    print(f"took {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise SystemExit("bench: stopped") from None

"""How well an outage is measured: Homeostat's bounds beside a CLI loop and Chaos Toolkit, against a known truth.

    make bench B=outage         about 12 minutes on a quiet machine; QUICK=1 makes it less than one
    make bench B=outage PART=cpu    only what a sample costs, once more, into the result that is there

Many lanes run at once. In each a single-threaded server (`outage_truth.py`) is out for exactly as long as it is
told and logs it, and one product monitor samples it through the product's own supervision. In some lanes the
same outages are seen by the loop of `openstack server list` (`outage_cli_loop.py`) and by Chaos Toolkit's continuous
hypothesis. Then everything but the peers once more with a busy loop on each core at normal priority.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import outage_cli_loop
import psutil

from homeostat.kernel.processes import die_with_parent
from homeostat.monitors.node.sampler import SamplerConfig
from homeostat.monitors.outage import SamplingPlan, measure
from homeostat.monitors.supervision import Measurement, Monitors, monitor_command
from homeostat.monitors.verdicts import Verdict, decide

HERE = Path(__file__).parent
RESULT = HERE / "results" / "outage.json"
PEER_HOME = HERE.parent / ".venv" / "bench-chaostoolkit"
PEER = "chaostoolkit==1.19.*"
CPU_PROMISE = "ms CPU a sample"

QUICK = bool(os.environ.get("QUICK"))
LIMIT_MS = 5_000
PERIOD_MS = 15.0
DEADLINE_MS = 1_000.0
MODES = ("refuse", "503", "hang")
TRUTHS_MS = (50, 500, 2000, 4900, 5100) if QUICK else (50, 100, 200, 500, 1000, 2000, 4900, 4950, 5050, 5100)
PHASES = 2 if QUICK else 30
LANES = 10 if QUICK else 14
PEER_LANES = 3 if QUICK else 4
PEER_TRUTHS_MS = (500, 2000, 4000) if QUICK else TRUTHS_MS
PEER_PHASES = 1 if QUICK else 6
STEADY_S, STEADY_RUNS = (4, 1) if QUICK else (10, 7)
CLI_CALL_S = 1.5
"""What `openstack server list` takes of an idle core."""
CHAOS_FREQUENCY_S = 0.5
CHAOS_START_S = 5 if QUICK else 12
BEFORE_NS, AFTER_NS = 700_000_000, 600_000_000
WELL_S, PEER_WELL_S = 1.5, 3.5
"""Well between two outages: with peers long enough that two outages do not become one for them."""
CLOCKS_APART_NS = 5_000_000
"""The wall clock may be slewed this much against CLOCK_BOOTTIME during a run."""
COVERAGE_MIN, RATIO_MIN, INCONCLUSIVE_MAX, CPU_MS_MAX = 0.99, 50, 0.05, 0.2


def now_ns() -> int:
    """CLOCK_BOOTTIME, as the monitors read it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Job:
    """One outage to be made."""

    mode: str
    truth_ms: int


@dataclass(frozen=True)
class Truth:
    """One outage that was, as the server logged it."""

    job: Job
    told_ns: int
    out_ns: int
    back_ns: int
    last_good_ns: int
    first_good_ns: int

    @property
    def ms(self) -> float:
        """How long nobody was served."""
        return (self.back_ns - self.out_ns) / 1e6


class Lane:
    """One truth server and what happened to it."""

    def __init__(self, number: int, jobs: list[Job], *, peers: bool, folder: Path) -> None:
        self.number, self.jobs, self.peers, self.folder = number, jobs, peers, folder
        # Below the ephemeral range: a refused port there may connect to itself.
        self.port = 20_000 + (os.getpid() * 37 + number) % 12_000
        self.truths: list[Truth] = []
        self.calls: list[outage_cli_loop.Call] = []
        self.chaos_cpu_ms = 0.0

    @property
    def well_s(self) -> float:
        """Between two outages."""
        return PEER_WELL_S if self.peers else WELL_S

    @property
    def lasts_s(self) -> float:
        """About how long all of it takes."""
        return sum(job.truth_ms / 1000 + self.well_s + 0.3 for job in self.jobs)

    async def run(self, server: asyncio.subprocess.Process) -> None:
        """Make every outage, one after the other."""
        assert server.stdin is not None and server.stdout is not None
        for job in self.jobs:
            told_ns = now_ns() + round((self.well_s + random.uniform(0, 0.3)) * 1e9)
            # Not a multiple of the period, and never nearer to the limit than asked for.
            away = (
                1
                if job.truth_ms > LIMIT_MS
                else -1
                if job.truth_ms == LIMIT_MS - 100
                else random.choice((-1, 1))
            )
            lasts_ns = round((job.truth_ms + away * random.uniform(0, PERIOD_MS)) * 1e6)
            order = {"mode": job.mode, "out_ns": told_ns, "back_ns": told_ns + lasts_ns}
            server.stdin.write(json.dumps(order).encode() + b"\n")
            was = json.loads(await server.stdout.readline())
            self.truths.append(Truth(job, told_ns, **was))
        await asyncio.sleep(self.well_s)


@asynccontextmanager
async def truth_server(lane: Lane) -> AsyncIterator[asyncio.subprocess.Process]:
    """Its process, on the last core."""
    core = sorted(os.sched_getaffinity(0))[-1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "outage_truth.py"), str(lane.port), str(core),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent(),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def stress(cores: set[int]) -> AsyncIterator[None]:
    """A busy loop on each core, at normal priority."""
    busy = [
        subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile 1: pass"],
                         preexec_fn=die_with_parent())
        for core in cores
    ]  # fmt: skip
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def monitor(lane: Lane, *, raised: bool) -> SamplerConfig:
    """The product's monitor of this lane."""
    return SamplerConfig(
        name=f"lane{lane.number}",
        url=f"http://127.0.0.1:{lane.port}/",
        samples_file=str(lane.folder / f"lane{lane.number}.jsonl"),
        period_ms=PERIOD_MS,
        deadline_ms=DEADLINE_MS,
        raised_priority=raised,
    )


def ours(lane: Lane, found: Measurement, phase: str) -> list[dict[str, object]]:
    """What our bounds say of every outage of this lane."""
    if found.lost is not None:
        raise SystemExit(f"bench: monitor {found.name} was lost: {found.lost}")
    assert found.ready is not None
    rows: list[dict[str, object]] = []
    for truth in lane.truths:
        plan = SamplingPlan(
            period_ns=round(PERIOD_MS * 1e6),
            fault_ns=truth.told_ns - 1_000_000,
            until_ns=truth.back_ns + AFTER_NS,
            from_ns=truth.told_ns - BEFORE_NS,
        )
        outage = measure(found.samples, plan)
        decision = decide(outage, LIMIT_MS)
        bytes_ms = (truth.first_good_ns - truth.last_good_ns) / 1e6
        upper = outage.upper_ms
        rows.append({
            "who": "homeostat", "phase": phase, "priority": found.ready.priority, "lane": lane.number,
            "mode": truth.job.mode, "asked_ms": truth.job.truth_ms, "truth_ms": round(truth.ms, 3),
            "bytes_ms": round(bytes_ms, 3), "lower_ms": round(outage.lower_ms, 3),
            "upper_ms": None if upper is None else round(upper, 3), "gap_ms": round(outage.gap_ms, 3),
            "lateness_ms": round(outage.lateness_near_ms, 3), "rho_ms": round(outage.rho_ms, 3),
            "contains": upper is not None and outage.lower_ms <= truth.ms <= upper,
            "contains_bytes": upper is not None and outage.lower_ms <= bytes_ms <= upper,
            "error_ms": None if upper is None else round(abs((outage.lower_ms + upper) / 2 - truth.ms), 3),
            "verdict": str(decision.verdict), "reason": decision.reason.name,
        })  # fmt: skip
    return rows


async def watched(lanes: list[Lane], phase: str, *, raised: bool = True) -> list[dict[str, object]]:
    """All lanes at once; the peers where they are wanted."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(truth_server(lane)) for lane in lanes]
        await asyncio.gather(*(answers(lane.port) for lane in lanes))
        commands = [monitor_command(monitor(lane, raised=raised), lane.folder) for lane in lanes]
        async with Monitors(commands) as monitors:
            if not await monitors.ready():
                raise SystemExit(f"bench: monitors are not ready: {monitors.lost}")
            jobs = [with_peers(lane, server) if lane.peers else lane.run(server)
                    for lane, server in zip(lanes, servers, strict=True)]  # fmt: skip
            extra = [rows for rows in await asyncio.gather(*jobs) if rows]
            found = await monitors.stop()
    rows = [row for lane, each in zip(lanes, found, strict=True) for row in ours(lane, each, phase)]
    return rows + [row for more in extra for row in more]


async def answers(port: int) -> None:
    """Until somebody listens there."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def with_peers(lane: Lane, server: asyncio.subprocess.Process) -> list[dict[str, object]]:
    """The outages of a lane, seen by the peers too; started first, so that they are at work when it begins."""
    journal = lane.folder / f"chaos{lane.number}.json"
    chaos = await start_chaos(lane, journal)
    over = threading.Event()
    looping = asyncio.create_task(asyncio.to_thread(run_cli_loop, lane, over))
    before_ns = time.time_ns() - now_ns()
    try:
        await asyncio.sleep(CHAOS_START_S)  # Chaos Toolkit loads, and checks its hypothesis once
        watched_from_ns, spent_s = now_ns(), -cpu_s(chaos.pid)
        await lane.run(server)
        watched_to_ns, spent_s = now_ns(), spent_s + cpu_s(chaos.pid)
    finally:
        over.set()
    await looping
    said, _ = await chaos.communicate()
    if not journal.exists():
        raise SystemExit(f"bench: Chaos Toolkit wrote no journal: {said.decode()[-500:]}")
    clocks = (before_ns, time.time_ns() - now_ns())
    if abs(clocks[0] - clocks[1]) > CLOCKS_APART_NS:
        raise SystemExit("bench: the wall clock was stepped; Chaos Toolkit's journal cannot be read")
    spans = chaos_spans(json.loads(journal.read_text()), clocks[0])
    probes = sum(watched_from_ns < start < watched_to_ns for start, _, _ in spans)
    lane.chaos_cpu_ms = spent_s / probes * 1000
    return [*cli_rows(lane), *chaos_rows(lane, spans)]


def run_cli_loop(lane: Lane, over: threading.Event) -> None:
    """The loop with calls that take their time asleep instead of on a core: it must not disturb the others."""

    def call() -> bool:
        began_s = time.monotonic()
        time.sleep(0.7 * CLI_CALL_S)  # imports, plugins, a token
        good = False
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(
                "127.0.0.1", lane.port
            )  # no deadline, as the client has none
            connection.request("GET", "/")
            good = connection.getresponse().status == 200
            connection.close()
        time.sleep(max(0.0, began_s + CLI_CALL_S - time.monotonic()))
        return good

    lane.calls = outage_cli_loop.loop(call, lambda: now_ns() / 1e9 if not over.is_set() else 1e18, 1e17)


def cli_rows(lane: Lane) -> list[dict[str, object]]:
    """What the loop says of each outage: from the calls that touch it."""
    rows = []
    for truth in lane.truths:
        from_s, to_s = truth.out_ns / 1e9, truth.back_ns / 1e9
        calls = [call for call in lane.calls if call.ended_s >= from_s and call.begun_s <= to_s]
        measured_ms = outage_cli_loop.outage_s(calls) * 1000
        rows.append(peer_row("cli loop", lane, truth, measured_ms, sum(not call.good for call in calls)))
    return rows


async def start_chaos(lane: Lane, journal: Path) -> asyncio.subprocess.Process:
    """Chaos Toolkit with a continuous hypothesis, as long as the lane lasts."""
    probe = {"type": "probe", "name": "answers", "tolerance": 200,
             "provider": {"type": "http", "url": f"http://127.0.0.1:{lane.port}/", "timeout": DEADLINE_MS / 1000}}  # fmt: skip
    wait = {"type": "action", "name": "outages",
            "provider": {"type": "process", "path": "sleep", "arguments": str(round(lane.lasts_s + CHAOS_START_S + lane.well_s + 3))}}  # fmt: skip
    experiment = {"version": "1.0.0", "title": "outage", "description": "bench",
                  "steady-state-hypothesis": {"title": "up", "probes": [probe]}, "method": [wait], "rollbacks": []}  # fmt: skip
    path = lane.folder / f"experiment{lane.number}.json"
    path.write_text(json.dumps(experiment))
    return await asyncio.create_subprocess_exec(
        str(PEER_HOME / "bin" / "chaos"), "--no-version-check", "--log-file", str(lane.folder / "chaos.log"),
        "run", "--hypothesis-strategy", "continuously", "--hypothesis-frequency", str(CHAOS_FREQUENCY_S),
        "--journal-path", str(journal), str(path),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=lane.folder, preexec_fn=die_with_parent(),
    )  # fmt: skip


def chaos_spans(journal: dict[str, object], offset_ns: int) -> list[tuple[int, int, bool]]:
    """Begin, end and failure of every probe of the continuous hypothesis, on CLOCK_BOOTTIME."""
    states = journal["steady_states"]["during"]  # type: ignore[index]
    return [
        (wall_ns(probe["start"]) - offset_ns, wall_ns(probe["end"]) - offset_ns, not probe["tolerance_met"])
        for state in states
        for probe in state["probes"]
    ]


def chaos_rows(lane: Lane, spans: list[tuple[int, int, bool]]) -> list[dict[str, object]]:
    """From the first failed probe to the last failed one, for each outage."""
    rows = []
    for truth in lane.truths:
        from_ns, to_ns = truth.out_ns - CLOCKS_APART_NS, truth.back_ns + CLOCKS_APART_NS
        failed = [(start, end) for start, end, bad in spans if bad and start < to_ns and end > from_ns]
        took_ns = max(end for _, end in failed) - min(start for start, _ in failed) if failed else 0
        rows.append(peer_row("chaos toolkit", lane, truth, took_ns / 1e6, len(failed)))
    return rows


def wall_ns(text: str) -> int:
    """Chaos Toolkit's own stamps: UTC without saying so."""
    at = datetime.fromisoformat(text)
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6) * 1000


def peer_row(who: str, lane: Lane, truth: Truth, measured_ms: float, failed: int) -> dict[str, object]:
    """One line of the result."""
    return {
        "who": who, "phase": "quiet", "lane": lane.number, "mode": truth.job.mode,
        "asked_ms": truth.job.truth_ms, "truth_ms": round(truth.ms, 3), "measured_ms": round(measured_ms, 3),
        "failed_samples": failed, "error_ms": round(abs(measured_ms - truth.ms), 3),
        "verdict": str(Verdict.PASS if measured_ms < LIMIT_MS else Verdict.FAIL),
    }  # fmt: skip


async def steady(folder: Path) -> dict[str, object]:
    """CPU of one sample when nothing happens, from the baseline to the end: the median of several monitors."""
    each = [await steady_once(folder, number) for number in range(STEADY_RUNS)]
    return {"ms_per_sample": round(statistics.median(each), 4), "ms_per_sample_each": each}


async def steady_once(folder: Path, number: int) -> float:
    """Of one monitor."""
    lane = Lane(90 + number, [], peers=False, folder=folder)
    config = monitor(lane, raised=True)
    async with truth_server(lane):
        await answers(lane.port)
        async with Monitors([monitor_command(config, folder)]) as monitors:
            if not await monitors.ready():
                raise SystemExit(f"bench: the monitor is not ready: {monitors.lost}")
            await asyncio.sleep(STEADY_S)
            (found,) = await monitors.stop()
    cpu_ms = found.cpu_ms_per_sample
    if cpu_ms is None:
        raise SystemExit("bench: the monitor's heartbeats are missing")
    return round(cpu_ms, 4)


def lanes_of(jobs: list[Job], number: int, first: int, folder: Path, *, peers: bool) -> list[Lane]:
    """Lanes of about the same length, each with its outages in random order."""
    lanes = [Lane(first + count, [], peers=peers, folder=folder) for count in range(number)]
    for job in sorted(jobs, key=lambda job: -job.truth_ms):
        min(lanes, key=lambda lane: lane.lasts_s).jobs.append(job)
    for lane in lanes:
        random.shuffle(lane.jobs)
    return lanes


def summary(rows: Iterable[dict[str, object]]) -> dict[str, object]:
    """One line of the table for our own rows."""
    mine = list(rows)
    errors = [float(row["error_ms"]) for row in mine if row["error_ms"] is not None]  # type: ignore[arg-type]
    widths = [row["upper_ms"] - row["lower_ms"] for row in mine if row["upper_ms"] is not None]  # type: ignore[operator]
    clear = [row for row in mine if abs(float(row["truth_ms"]) - LIMIT_MS) >= 99]  # type: ignore[arg-type]
    undecided = sum(row["verdict"] in (Verdict.INCONCLUSIVE, Verdict.ERROR) for row in clear)
    return {
        "outages": len(mine), "contained": sum(bool(row["contains"]) for row in mine) / len(mine),
        "contained_bytes": sum(bool(row["contains_bytes"]) for row in mine) / len(mine),
        "median_error_ms": round(statistics.median(errors), 2), "p95_error_ms": round(quantile(errors, 0.95), 2),
        "median_width_ms": round(statistics.median(widths), 2),
        "wrong": sum(is_wrong(row) for row in mine), "inconclusive_share": undecided / len(clear),
        "lateness_p99_ms": round(quantile([float(row["lateness_ms"]) for row in mine], 0.99), 2),  # type: ignore[arg-type]
    }  # fmt: skip


def is_wrong(row: dict[str, object]) -> bool:
    """PASS of what lasted too long, FAIL of what did not."""
    kept = float(row["truth_ms"]) < LIMIT_MS  # type: ignore[arg-type]
    return row["verdict"] == (Verdict.FAIL if kept else Verdict.PASS)


def quantile(values: list[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def install_peer() -> str:
    """Chaos Toolkit in an environment of its own, once."""
    chaos = PEER_HOME / "bin" / "chaos"
    if not chaos.exists():
        print("installing Chaos Toolkit ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(PEER_HOME)], check=True)
        subprocess.run([str(PEER_HOME / "bin" / "pip"), "install", "--quiet", PEER], check=True)
    ran = subprocess.run([str(chaos), "--version"], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    return sum(psutil.Process(pid).cpu_times()[:2])


async def measured(folder: Path) -> tuple[list[dict[str, object]], dict[str, object]]:
    """All of it: rows, and CPU a sample."""
    jobs = [Job(mode, truth_ms) for mode in MODES for truth_ms in TRUTHS_MS for _ in range(PHASES)]
    peer_jobs = [
        Job(mode, truth_ms) for mode in MODES for truth_ms in PEER_TRUTHS_MS for _ in range(PEER_PHASES)
    ]
    say("CPU of a sample")
    spent = await steady(folder)
    quiet = lanes_of(jobs, LANES, 0, folder, peers=False)
    beside = lanes_of(peer_jobs, PEER_LANES, LANES, folder, peers=True)
    say(
        f"{len(jobs)} outages, and {len(peer_jobs)} that the peers see too: {lasts_s([*quiet, *beside]):.0f} s"
    )
    rows = await watched([*quiet, *beside], "quiet")
    spent["chaos_toolkit_ms_per_probe"] = round(statistics.median(lane.chaos_cpu_ms for lane in beside), 2)
    half = LANES // 2
    first, second = jobs[::2], jobs[1::2]
    raised = lanes_of(first, half, 40, folder, peers=False)
    plain = lanes_of(second, half, 60, folder, peers=False)
    say(f"{len(jobs)} outages under stress: {lasts_s([*raised, *plain]):.0f} s")
    async with stress(os.sched_getaffinity(0)):
        both = await asyncio.gather(watched(raised, "stress"), watched(plain, "stress", raised=False))
    return [*rows, *both[0], *both[1]], spent


def lasts_s(lanes: list[Lane]) -> float:
    """The longest lane."""
    return max(lane.lasts_s for lane in lanes)


def say(text: str) -> None:
    """Progress."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def promise(what: str, target: float, measured_: float, *, at_least: bool) -> dict[str, object]:
    """One line of promises."""
    met = measured_ >= target if at_least else measured_ <= target
    return {"what": what, "target": target, "measured": round(measured_, 4), "met": met}


def result_of(
    rows: list[dict[str, object]], spent: dict[str, object], peer: str, load: float
) -> dict[str, object]:
    """What is written."""
    mine = [row for row in rows if row["who"] == "homeostat"]
    groups = {
        "quiet": [row for row in mine if row["phase"] == "quiet"],
        "stress, priority raised": [
            row for row in mine if row["phase"] == "stress" and row["priority"] != "none"
        ],
        "stress, priority not raised": [
            row for row in mine if row["phase"] == "stress" and row["priority"] == "none"
        ],
    }
    sums = {name: summary(group) for name, group in groups.items() if group}
    same = {(row["lane"], row["truth_ms"]) for row in rows if row["who"] == "cli loop"}
    beside = [float(row["error_ms"] or 0) for row in mine if (row["lane"], row["truth_ms"]) in same]  # type: ignore[arg-type]
    our_error = statistics.median(beside)
    ratios: dict[str, object] = {"our_median_error_ms": round(our_error, 3)}
    promises = [
        promise(
            "bounds contain the truth, quiet", COVERAGE_MIN, float(sums["quiet"]["contained"]), at_least=True
        ),  # type: ignore[arg-type]
        promise(
            "bounds contain first to last byte, quiet",
            COVERAGE_MIN,
            float(sums["quiet"]["contained_bytes"]),
            at_least=True,
        ),  # type: ignore[arg-type]
        promise("wrong verdicts against 5 s, quiet", 0, float(sums["quiet"]["wrong"]), at_least=False),  # type: ignore[arg-type]
        promise(
            "undecided 100 ms and more from 5 s, quiet",
            INCONCLUSIVE_MAX,
            float(sums["quiet"]["inconclusive_share"]),
            at_least=False,
        ),  # type: ignore[arg-type]
        promise(
            "wrong verdicts against 5 s, stress",
            0,
            sum(is_wrong(row) for row in mine if row["phase"] == "stress"),
            at_least=False,
        ),
        promise(CPU_PROMISE, CPU_MS_MAX, spent["ms_per_sample"], at_least=False),  # type: ignore[arg-type]
    ]
    for who in ("cli loop", "chaos toolkit"):
        errors = [float(row["error_ms"]) for row in rows if row["who"] == who]  # type: ignore[arg-type]
        long = [float(row["error_ms"]) for row in rows if row["who"] == who and row["asked_ms"] >= 1000]  # type: ignore[arg-type,operator]
        wrong = sum(is_wrong(row) for row in rows if row["who"] == who)
        ratio = statistics.median(errors) / our_error
        ratios[who] = {"median_error_ms": round(statistics.median(errors), 1), "ratio": round(ratio, 1),
                       "median_error_of_a_second_and_more_ms": round(statistics.median(long), 1),
                       "seen_as_nothing": sum(row["who"] == who and row["measured_ms"] == 0 for row in rows),
                       "outages": len(errors), "wrong": wrong}  # fmt: skip
        promises.append(promise(f"median error of {who} over ours", RATIO_MIN, ratio, at_least=True))
    return {
        "name": "outage", "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "work": {"quick": QUICK, "truths_ms": TRUTHS_MS, "modes": MODES, "phases": PHASES, "lanes": LANES,
                 "period_ms": PERIOD_MS, "deadline_ms": DEADLINE_MS, "limit_ms": LIMIT_MS, "peer": peer,
                 "peer_lanes": PEER_LANES, "peer_frequency_s": CHAOS_FREQUENCY_S, "cli_call_s": CLI_CALL_S},
        "machine": {"cores": os.cpu_count(), "load": load, "load_at_the_end": os.getloadavg()[0]},
        "cpu": spent, "sums": sums, "ratios": ratios, "promises": promises, "rows": rows,
    }  # fmt: skip


def show(result: dict[str, object]) -> None:
    """The table."""
    print(
        f"{'':30}{'outages':>8}{'held':>8}{'error ms':>10}{'width ms':>10}{'wrong':>7}{'undecided':>11}{'late p99':>10}"
    )
    for name, one in result["sums"].items():  # type: ignore[attr-defined]
        print(f"{name:30}{one['outages']:>8}{one['contained']:>8.1%}{one['median_error_ms']:>10}"
              f"{one['median_width_ms']:>10}{one['wrong']:>7}{one['inconclusive_share']:>11.1%}{one['lateness_p99_ms']:>10}")  # fmt: skip
    for who in ("cli loop", "chaos toolkit"):
        one = result["ratios"][who]  # type: ignore[index]
        print(
            f"{who:30}{one['outages']:>8}{'':>8}{one['median_error_ms']:>10}{'':>10}{one['wrong']:>7}   {one['ratio']} times ours"
        )
    print(f"CPU: {result['cpu']}")
    for each in result["promises"]:  # type: ignore[attr-defined]
        print(
            f"{'met' if each['met'] else 'BROKEN':7}{each['what']}: {each['measured']} (target {each['target']})"
        )
    print(f"written to {RESULT}")


def write(result: dict[str, object]) -> None:
    """One outage a line."""
    head = json.dumps({**result, "rows": []}, indent=1)
    lines = ",\n  ".join(json.dumps(row) for row in result["rows"])  # type: ignore[attr-defined]
    RESULT.write_text(head.replace('"rows": []', f'"rows": [\n  {lines}\n ]') + "\n")


def cpu_again() -> dict[str, object]:
    """The result that is there, with what a sample costs measured once more."""
    result: dict[str, object] = json.loads(RESULT.read_text())
    with tempfile.TemporaryDirectory() as name:
        spent = asyncio.run(steady(Path(name)))
    again = {
        "measured_again": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_then": os.getloadavg()[0],
    }
    result["cpu"] = {**result["cpu"], **spent, **again}  # type: ignore[dict-item]
    kept = [each for each in result["promises"] if each["what"] != CPU_PROMISE]  # type: ignore[attr-defined]
    result["promises"] = [*kept, promise(CPU_PROMISE, CPU_MS_MAX, spent["ms_per_sample"], at_least=False)]  # type: ignore[arg-type]
    return result


def main() -> None:
    """Measure, print, write the result."""
    if os.environ.get("PART") == "cpu":
        result = cpu_again()
    else:
        peer, load = install_peer(), os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as name:
            rows, spent = asyncio.run(measured(Path(name)))
        result = result_of(rows, spent, peer, load)
    write(result)
    show(result)


if __name__ == "__main__":
    main()

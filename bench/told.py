"""How long until a consumer has read what happened: Homeostat beside Debian's prometheus-alertmanager.

    make bench B=told           30 repetitions of each, interleaved; QUICK=1 makes it 8

Ours: `kill -9` of a lab service by this script, until the lab's consumer has read the whole raised notice. That
includes seeing the death, deciding, and a commit with a disk flush. The peer: one alert POSTed to Alertmanager with
`group_wait: 0s`, until a consumer has read its webhook. Nothing has to be detected there, and nothing is flushed:
the comparison favours the peer. Both consumers stamp CLOCK_BOOTTIME on this machine.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil

from homeostat.kernel.client import Client
from homeostat.kernel.processes import die_with_parent

REPETITIONS = 8 if os.environ.get("QUICK") else 30
PEER = "prometheus-alertmanager"
RESULT = Path(__file__).parent / "results" / "told.json"


def now_ns() -> int:
    """CLOCK_BOOTTIME, as Homeostat's own processes read it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def flush_ms(folder: Path) -> list[float]:
    """What the disk itself takes for one appended page."""
    took = []
    with (folder / "flush").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            file.flush()
            began_ns = now_ns()
            os.fdatasync(file.fileno())
            took.append((now_ns() - began_ns) / 1e6)
    return took


@contextmanager
def lab(folder: Path) -> Iterator[Path]:
    """A running `homeostat up`."""
    state = folder / "state"
    with (folder / "up.out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "homeostat.cli", "up", "--dir", str(state)],
            stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent(signal.SIGTERM),
        )  # fmt: skip
    try:
        wait_for(lambda: "are up" in (folder / "up.out").read_text(), 90, "the lab")
        yield state
    finally:
        process.terminate()
        process.wait(60)


class Listener(http.server.BaseHTTPRequestHandler):
    """The peer's consumer: stamps when the whole body is read."""

    heard: list[int] = []

    def do_POST(self) -> None:
        """Read, stamp, answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(now_ns())
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def alertmanager(folder: Path) -> Iterator[tuple[str, int]]:
    """A running peer: its URL and pid."""
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "alertmanager.yml"
    config.write_text(
        "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}\n"
        f"receivers: [{{name: hook, webhook_configs: [{{url: 'http://127.0.0.1:{listener.server_port}/'}}]}}]\n"
    )
    process = subprocess.Popen(
        [PEER, f"--config.file={config}", f"--storage.path={folder}/am",
         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent(),
    )  # fmt: skip
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), 30, PEER)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(20)
        listener.shutdown()


def answers(url: str) -> bool:
    """Whether somebody answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for(check: object, within_s: float, what: str) -> None:
    """Until `check` is true."""
    end_s = time.monotonic() + within_s
    while not check():  # type: ignore[operator]
        if time.monotonic() > end_s:
            raise SystemExit(f"bench: {what} is not there within {within_s:g} s")
        time.sleep(0.01)


def cpu_s(pids: list[int]) -> float:
    """User and system seconds of these processes so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def ours_ms(state: Path, resource: str) -> float:
    """Kill one service; until the consumer has read that it is down. Then wait until all is over."""
    heard = state / "heard.jsonl"
    before = heard.stat().st_size if heard.exists() else 0
    client = Client.find(state)
    pid = client.call("GET", f"/resources/{resource}")["pid"]
    began_ns = now_ns()
    os.kill(pid, signal.SIGKILL)

    def told(transition: str) -> list[int]:
        if not heard.exists():
            return []
        with heard.open("rb") as file:
            file.seek(before)
            lines = [json.loads(line) for line in file.read().splitlines() if line.endswith(b"}")]
        return [
            line["received_mono_ns"] for line in lines
            if line["body"]["transition"] == transition and line["body"]["notice"].startswith("on-call:")
        ]  # fmt: skip

    wait_for(lambda: told("cleared"), 60, "the all-clear")
    return (told("raised")[0] - began_ns) / 1e6


def peer_ms(url: str, number: int) -> float:
    """POST one alert; until the consumer has read its webhook."""
    Listener.heard.clear()
    alert = [{"labels": {"alertname": "down", "instance": f"i{number}"}}]
    request = urllib.request.Request(
        f"{url}/api/v2/alerts", data=json.dumps(alert).encode(), headers={"Content-Type": "application/json"}
    )
    began_ns = now_ns()
    urllib.request.urlopen(request, timeout=10).close()
    wait_for(lambda: Listener.heard, 20, "the peer's webhook")
    return (Listener.heard[0] - began_ns) / 1e6


def row(who: str, values: list[float], spent_s: float) -> dict[str, object]:
    """One line of the table."""
    ordered = sorted(values)
    return {
        "who": who,
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
        "cpu_s": round(spent_s, 2),
        "each_ms": [round(value, 2) for value in values],
    }


def main() -> None:
    """Measure, print, write the result."""
    if shutil.which(PEER) is None:
        raise SystemExit(f"bench: the peer is not here; apt-get install {PEER}")
    version = subprocess.run([PEER, "--version"], capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flush = flush_ms(folder)
        with lab(folder) as state, alertmanager(folder) as (url, peer_pid):
            children = json.loads((state / "children.json").read_text())["children"]
            pids = [each["pid"] for who, each in children.items() if who in ("server", "nats")]
            pids += [each["pid"] for who, each in children.items() if who.startswith("node-")]
            started = cpu_s(pids), cpu_s([peer_pid])
            ours, peer = [], []
            resources = [f"guest-n{host}-{which}" for host in (1, 2, 3) for which in "ab"]
            for number in range(REPETITIONS):
                print(f"\r{number + 1}/{REPETITIONS}", end="", file=sys.stderr, flush=True)
                peer.append(peer_ms(url, number))
                ours.append(ours_ms(state, resources[number % len(resources)]))
            print(file=sys.stderr)
            spent = cpu_s(pids) - started[0], cpu_s([peer_pid]) - started[1]
    rows = [row("homeostat: kill -9 to told", ours, spent[0]), row(f"{PEER}: POST to told", peer, spent[1])]
    median = statistics.median(ours)
    result = {
        "name": "told",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "work": {"repetitions": REPETITIONS, "peer": (version.stdout + version.stderr).splitlines()[0]},
        "machine": {
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "flush_p50_ms": round(statistics.median(flush), 3),
            "flush_p99_ms": round(sorted(flush)[98], 3),
        },
        "rows": rows,
        "ratios": {"ours_to_peer_p50": round(median / statistics.median(peer), 2)},
        "promises": [
            {
                "what": "a consumer is told within a second of the death",
                "target": 1000,
                "measured": max(round(value, 2) for value in ours),
                "met": max(ours) < 1000,
            }
        ],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{'':34}{'p50 ms':>9}{'p99 ms':>9}{'CPU s':>8}")
    for each in rows:
        print(f"{each['who']:34}{each['p50_ms']:>9}{each['p99_ms']:>9}{each['cpu_s']:>8}")
    print(f"flush p50 {result['machine']['flush_p50_ms']} ms; written to {RESULT}")


if __name__ == "__main__":
    main()

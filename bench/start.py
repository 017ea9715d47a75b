"""What the start of a command costs: Homeostat's own command line beside Chaos Toolkit's, in CPU seconds.

    make bench B=start          half a minute

Nothing is asked of anybody but one small server for `status` and `fault ls`. The least of each row's runs is what
the command needs; the rest is what else this machine was busy with. Interleaved, so that all meet the same noise.
"""

from __future__ import annotations

import http.server
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from outage import PEER_HOME, install_peer, say

RUNS = 5 if os.environ.get("QUICK") else 15
PROMISED_S = 0.3
RESULT = Path(__file__).parent / "results" / "start.json"
HOMEOSTAT = Path(sys.executable).with_name("homeostat")


@dataclass(slots=True)
class Started:
    """One command and the CPU seconds of each of its runs, user and system."""

    what: str
    argv: list[str]
    ours: bool
    cpu_s: list[float] = field(default_factory=list)

    def once(self, environment: dict[str, str]) -> None:
        """Run it to its end."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(self.argv, stdout=subprocess.DEVNULL, env=environment, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


class Empty(http.server.BaseHTTPRequestHandler):
    """A server on which nothing is."""

    def do_GET(self) -> None:
        body = json.dumps({"version": "1", "standing": "kept", "items": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def server() -> Iterator[str]:
    """Its URL."""
    empty = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=empty.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{empty.server_port}"
    finally:
        empty.shutdown()
        thread.join()


def machine() -> dict[str, object]:
    """Where this was."""
    return {"cores": os.cpu_count(), "load": round(psutil.getloadavg()[0], 1)}


def main() -> None:
    """Measure, print, write."""
    install_peer()
    home, chaos = str(HOMEOSTAT), str(PEER_HOME / "bin" / "chaos")
    rows = [
        Started("python, nothing imported", [sys.executable, "-c", "pass"], ours=False),
        Started("homeostat --help", [home, "--help"], ours=True),
        Started("homeostat status --json", [home, "status", "--json"], ours=True),
        Started("homeostat fault ls --json", [home, "fault", "ls", "--json"], ours=True),
        Started("chaos --help", [chaos, "--no-version-check", "--help"], ours=False),
    ]
    before = machine()
    with server() as url:
        environment = {**os.environ, "HOMEOSTAT_URL": url, "HOMEOSTAT_TOKEN": "hs_x"}
        for number in range(RUNS):
            say(f"run {number + 1} of {RUNS}")
            for row in rows:
                row.once(environment)
    worst = max(min(row.cpu_s) for row in rows if row.ours)
    result = {
        "name": "start",
        "work": {"runs": RUNS, "promised_s": PROMISED_S, "judged_by": "the least of the runs"},
        "date": datetime.now(UTC).isoformat(),
        "machine": before,
        "runs": RUNS,
        "rows": [
            {
                "what": row.what,
                "least_ms": round(1000 * min(row.cpu_s)),
                "median_ms": round(1000 * statistics.median(row.cpu_s)),
                "each_ms": [round(1000 * each) for each in row.cpu_s],
            }
            for row in rows
        ],
        "promises": [
            {
                "what": "every command's start",
                "target": f"{PROMISED_S * 1000:.0f} ms CPU",
                "measured": f"{worst * 1000:.0f} ms CPU",
                "met": worst < PROMISED_S,
            }
        ],
    }
    print(json.dumps(result["rows"], indent=1))
    if not os.environ.get("QUICK"):
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    if worst >= PROMISED_S:
        raise SystemExit(f"bench: {worst * 1000:.0f} ms CPU is more than {PROMISED_S * 1000:.0f} ms")


if __name__ == "__main__":
    main()

"""Kills lab services from outside and keeps its own log: the oracle that Homeostat cannot bend.

Run beside a lab: `python injector.py STATE_DIR LOG SECONDS SEED`. One JSON line a kill: which resource, which
process, when by the wall clock. It learns where a process is from the agent's pid file, never from Homeostat.
A resource is left alone until its process is another one and `REST_S` have passed, so that two kills are two
outages for anybody who looks. A file `LOG.spare-<host>` says that a host is to be left alone.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path

from homeostat.kernel.processes import Identity, is_alive, send_signal

REST_S = 2.0


def identity_in(path: Path) -> Identity | None:
    """Who runs, by the agent's own pid file."""
    try:
        words = path.read_text().split()
        return Identity(int(words[0]), int(words[1]))
    except (OSError, ValueError, IndexError):
        return None


def main(state: Path, log: Path, seconds: float, seed: int) -> None:
    """Kill something now and then, until the time is over."""
    choose = random.Random(seed)
    pid_files = sorted(state.glob("hosts/*/**/*.pid"))
    assert len(pid_files) == 9, pid_files
    rested_s: dict[Path, float] = {}
    living: dict[Path, Identity] = {}
    end_s = time.monotonic() + seconds
    with log.open("a") as file:
        while time.monotonic() < end_s:
            time.sleep(choose.uniform(0.02, 0.4))
            now_s = time.monotonic()
            for path in pid_files:
                now = identity_in(path)
                if now is not None and is_alive(now) and living.get(path) != now:
                    living[path], rested_s[path] = now, now_s + REST_S
            spared = [each.name.rpartition("spare-")[2] for each in log.parent.glob(f"{log.name}.spare-*")]
            ready = [
                path
                for path in living
                if is_alive(living[path])
                and rested_s[path] <= now_s
                and path.relative_to(state / "hosts").parts[0] not in spared
            ]
            if not ready:
                continue
            victim = choose.choice(ready)
            at_ns = time.time_ns()
            if send_signal(living[victim], signal.SIGKILL):
                entry = {"resource": victim.stem.split("homeostat-process-")[-1], "at_ns": at_ns}
                file.write(json.dumps({**entry, "pid": living[victim].pid}) + "\n")
                file.flush()
                rested_s[victim] = float("inf")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))

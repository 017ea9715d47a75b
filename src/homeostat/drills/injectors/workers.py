"""Workers of ours that keep something busy: started waiting, known to the keeper, then let go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.record import Fault
from homeostat.drills.node_keeper import Process
from homeostat.kernel.errors import GiveUp

_STRESSOR = Path(__file__).with_name("node_stressor.py")
LONGEST_S = 900.0
"""A worker ends by itself after that, keeper or not. Longer than any drill's window."""


@dataclass(frozen=True)
class Worker:
    """One of them, waiting or at work."""

    process: subprocess.Popen[str]
    identity: Process


def start_workers(fault: Fault, words: Sequence[Sequence[str]]) -> tuple[Worker, ...]:
    """Start a worker for each list of words and register them; they wait. GiveUp when one does not start."""
    log = keeper.Folder(fault.keeper).log
    workers = tuple(_start(each, log) for each in words)
    keeper.add(fault.keeper, fault.id, *(keeper.step_kill(worker.identity) for worker in workers))
    for worker in workers:
        assert worker.process.stdout is not None
        if worker.process.stdout.readline() != "ready\n":
            raise GiveUp(f"a worker did not start; see {log}")
    return workers


def let_go(workers: Sequence[Worker]) -> None:
    """From here on they work, and outlive this process."""
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.write("go\n")
        worker.process.stdin.flush()


def cpu_ticks(process: Process) -> int:
    """Processor time of a process so far, in clock ticks."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _start(words: Sequence[str], log: Path) -> Worker:
    """A worker, waiting. It has none of our own pipes, or whoever reads them would wait for its end."""
    until_ns = keeper.now_ns() + int(LONGEST_S * 1e9)
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_STRESSOR), "--until", str(until_ns), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd="/",
            start_new_session=True,
        )
    identity = keeper.identify(process.pid)
    if identity is None:
        raise GiveUp(f"a worker did not start; see {log}")
    return Worker(process, identity)

"""Worker processes that load a processor or a disk: started waiting, registered with the keeper, released."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from homeostat.drills.shipped.injectors.record import InjectedFault
from homeostat.drills.shipped.keeper import machine, orders, steps
from homeostat.drills.shipped.keeper.machine import Process
from homeostat.kernel.errors import GiveUp
from homeostat.kernel.processes import read_stat

_STRESSOR = Path(__file__).with_name("stressor.py")
LONGEST_S = 900.0
"""A worker ends by itself after that, keeper or not. Longer than any drill's window."""


@dataclass(frozen=True)
class Worker:
    """One of them, waiting or at work."""

    process: subprocess.Popen[str]
    identity: Process


def start_workers(fault: InjectedFault, words: Sequence[Sequence[str]]) -> tuple[Worker, ...]:
    """Start a worker for each list of words and register them; they wait. GiveUp when one does not start."""
    log = machine.Folder(fault.keeper).log
    workers = tuple(_start(each, log) for each in words)
    orders.add(fault.keeper, fault.id, *(steps.step_kill(worker.identity) for worker in workers))
    for worker in workers:
        assert worker.process.stdout is not None
        if worker.process.stdout.readline() != "ready\n":
            raise GiveUp(f"a worker did not start; see {log}")
    return workers


def release_workers(workers: Sequence[Worker]) -> None:
    """From here on they work, and outlive this process."""
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.write("go\n")
        worker.process.stdin.flush()


def cpu_ticks(process: Process) -> int:
    """Processor time of a process so far, in clock ticks."""
    found = read_stat(process.pid)
    if found is None:
        raise GiveUp(f"worker {process.pid} has ended")
    return found.cpu_ticks


def _start(words: Sequence[str], log: Path) -> Worker:
    """A worker, waiting. It has none of our own pipes, or whoever reads them would wait for its end."""
    until_ns = machine.now_ns() + int(LONGEST_S * 1e9)
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
    identity = machine.identify(process.pid)
    if identity is None:
        raise GiveUp(f"a worker did not start; see {log}")
    return Worker(process, identity)

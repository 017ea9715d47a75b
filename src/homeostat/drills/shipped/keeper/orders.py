"""Orders to the undo keeper (arm, renew, undo, halt, resume, status), as functions and as a command line.

An order is a file in the keeper"s folder and a ring at its doorbell. Nothing is undone here, and a dead
keeper is no obstacle: whoever gives an order starts a new one, which finds the order on disk. The command
line prints JSON; it is for the guard and for people on the host. Invariants: a fault is on disk and known to
the keeper before anything is broken; each step is on disk before the act that it undoes; a fault id is used
once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from .daemon import LINGER_S, guard, keep, last_life, sign_of_life, start
from .machine import (
    Folder,
    KeeperError,
    KeeperRefusal,
    Ledger,
    boot_id,
    identify,
    now_ns,
    read,
    remove,
    sync_folder,
    within,
    write,
)
from .steps import Step


def arm(
    root: Path, fault: str, deadline_s: float, actor_pid: int, steps: Optional[List[Step]] = None
) -> None:
    """Register a fault before anything is done; the keeper has it when this returns.

    `actor_pid` is the process that will inject: it is killed before the undo unless `injected` was told, and
    its death is a reason to undo. Refused on a halted host, KeeperError when the fault is known already.
    """
    folder = Folder(root)
    folder.make()
    if folder.halted.exists():
        raise KeeperRefusal(f"{folder.root}: halted; `homeostat node resume` lets faults in again")
    if not 0 < deadline_s <= 3600:
        raise KeeperError(f"deadline_s: {deadline_s} is not accepted; more than 0, at most 3600")
    actor = identify(actor_pid)
    if actor is None:
        raise KeeperError(f"process {actor_pid} is gone")
    if folder.ledger(fault).exists() or folder.outcome(fault).exists():
        raise KeeperError(f"fault: {fault} has been used here; each injection has a name of its own")
    start(root)
    ledger = {
        "fault": fault, "boot_id": boot_id(), "armed_ns": now_ns(), "deadline_s": deadline_s,
        "actor": actor._asdict(), "steps": steps or [],
    }  # fmt: skip
    write(folder.ledger(fault), ledger)

    def kept() -> bool:
        life = sign_of_life(root, 1.0) or start(root)
        return fault in life["keeping"] or not folder.ledger(fault).exists()

    if not within(10.0, kept) or not folder.ledger(fault).exists():
        remove(folder.ledger(fault))
        raise KeeperRefusal(f"{folder.root}: the keeper did not take fault {fault}; nothing was injected")


def add(root: Path, fault: str, *steps: Step) -> None:
    """Put steps on disk, before the acts that they undo. KeeperError when the fault has been undone."""

    def grow(ledger: Ledger) -> None:
        ledger["steps"] = [*ledger["steps"], *steps]

    _change(root, fault, grow)


def replace(root: Path, fault: str, old: Step, new: Step) -> None:
    """Put more exact words in the place of a step: the inode of a file that now exists."""

    def swap(ledger: Ledger) -> None:
        ledger["steps"] = [new if step == old else step for step in ledger["steps"]]

    _change(root, fault, swap)


def injected(root: Path, fault: str) -> None:
    """Everything is done: whoever injected may end, the fault stands until its deadline."""
    _change(root, fault, lambda ledger: ledger.update(actor=None))


def _change(root: Path, fault: str, how: Callable[[Ledger], None]) -> None:
    path = Folder(root).ledger(fault)
    ledger = read(path)
    if ledger is None:
        raise KeeperError(f"fault: {fault} is not armed here; it may have been undone")
    how(ledger)
    write(path, ledger)


def renew(root: Path, fault: str) -> Dict[str, Any]:
    """Move the deadline on. Starts a keeper when there is none. KeeperError when the fault is over."""
    folder = Folder(root)
    if not folder.ledger(fault).exists():
        raise KeeperError(f"fault: {fault} is not armed here; it may have been undone")
    write(folder.mark(fault, "renewed"), {"at_ns": now_ns()}, durable=False)
    return start(root)


def undo(root: Path, fault: str, within_s: float = 15.0) -> Dict[str, Any]:
    """Undo now; the outcome. Asking again gives the same outcome. KeeperError when there is none in time."""
    folder = Folder(root)
    if folder.ledger(fault).exists():
        write(folder.mark(fault, "undo"), {"at_ns": now_ns()})
        start(root)
        within(within_s, lambda: not folder.ledger(fault).exists())
        remove(folder.mark(fault, "undo")) if not folder.ledger(fault).exists() else None
    found = outcome(root, fault)
    if found is None:
        raise KeeperError(f"fault: {fault} has no outcome; it was never armed here, or no keeper runs")
    return found


def outcome(root: Path, fault: str) -> Optional[Dict[str, Any]]:
    """What came of the undo; None while it has not been tried."""
    return read(Folder(root).outcome(fault))


def halt(root: Path, within_s: float = 15.0) -> List[Dict[str, Any]]:
    """Undo everything now and refuse new faults until `resume`. What was open, and what came of each."""
    folder = Folder(root)
    folder.make()
    open_now = folder.open_faults()
    write(folder.halted, {"at_ns": now_ns(), "boot_id": boot_id()})
    if open_now:
        start(root)
        within(within_s, lambda: not folder.open_faults())
    none = {"undone": False, "reason": "halted", "within_deadline": False, "steps": []}
    return [{**none, "fault": fault, **(read(folder.outcome(fault)) or {})} for fault in open_now]


def resume(root: Path) -> bool:
    """Let faults in again; whether they had been refused."""
    folder = Folder(root)
    was = folder.halted.exists()
    remove(folder.halted)
    if was:
        sync_folder(folder.root)
    return was


def status(root: Path) -> Dict[str, Any]:
    """The keeper, what it keeps, and whether the host is halted. Looks only."""
    folder = Folder(root)
    return {"keeper": last_life(folder), "open": folder.open_faults(), "halted": folder.halted.exists()}


def main(argv: Optional[List[str]] = None) -> int:
    """`python3 keeper VERB --state FOLDER`, JSON. 0 done, 1 not everything is undone, 2 not done."""
    parser = argparse.ArgumentParser(description="The undo keeper of this host.")
    verbs = ("start", "status", "renew", "undo", "halt", "resume", "keep", "guard")
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--state", type=Path, required=True, help="its folder")
    parser.add_argument("--fault", default="", help="which one: renew, undo")
    parser.add_argument("--linger", type=float, default=LINGER_S, help="seconds to stay without a fault")
    given = parser.parse_args(argv)
    answers: Dict[str, Callable[[], object]] = {
        "start": lambda: start(given.state, given.linger),
        "status": lambda: status(given.state),
        "renew": lambda: renew(given.state, given.fault),
        "undo": lambda: undo(given.state, given.fault),
        "halt": lambda: halt(given.state),
        "resume": lambda: resume(given.state),
    }
    if given.verb in ("keep", "guard"):
        (keep if given.verb == "keep" else guard)(given.state, given.linger)
        os._exit(0)  # a signal during Python's own clean-up would make a good end look like a death
    try:
        answer = answers[given.verb]()
    except (KeeperError, OSError, subprocess.SubprocessError) as error:
        print(f"undo keeper: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer))
    outcomes = answer if isinstance(answer, list) else [answer]
    return 1 if any(isinstance(one, dict) and one.get("undone") is False for one in outcomes) else 0

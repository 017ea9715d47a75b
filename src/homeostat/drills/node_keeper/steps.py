"""Steps of an undo: data of a fixed list of kinds, never a command line.

A step is written into the ledger before the act that it undoes. This is what a step says; how each kind is
undone is in `undoing`, `network` and `programs`. Nothing here looks at the machine.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, NamedTuple, Optional

from .machine import Process

Step = Dict[str, Any]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,62}\Z")
"""What may stand in the words of a tool: never an option, never a path."""


class Kind(NamedTuple):
    """How a step is undone (`undone` or `already`), and how it is seen that it is."""

    undo: Callable[[Step], str]
    verify: Callable[[Step], bool]


def name_in(step: Step, field: str) -> str:
    """A word of a step that goes to a tool. ValueError when it is no name."""
    value = str(step[field])
    if not NAME.match(value):
        raise ValueError(f"{field}: {value!r} is no name")
    return value


def step_cont(process: Process) -> Step:
    """A process that is about to be stopped goes on."""
    return {"kind": "cont", **process._asdict()}


def step_kill(process: Process) -> Step:
    """A process of ours is ended."""
    return {"kind": "kill", **process._asdict()}


def step_remove(path: str, inode: Optional[int]) -> Step:
    """A file of ours is removed. Without an inode (not yet known) only while it is empty."""
    return {"kind": "remove", "path": path, "inode": inode}


def step_qdisc(netns: Optional[int], device: str, handle: str) -> Step:
    """A root queueing discipline with our handle (`8a01:`) is taken from a device."""
    return {"kind": "qdisc", "netns": netns, "device": device, "handle": handle}


def step_table(netns: Optional[int], table: str) -> Step:
    """Our own nftables table of family inet is dropped."""
    return {"kind": "table", "netns": netns, "table": table}


def step_chain(netns: Optional[int], command: str, chain: str) -> Step:
    """Our own chain of iptables or ip6tables, and the jumps to it."""
    return {"kind": "chain", "netns": netns, "command": command, "chain": chain}


def step_program(name: str, host: str, seen_by: str, says: str, takes_s: float = 0.0) -> Step:
    """A program that this machine permits is run for a host; it is undone when `seen_by` prints `says`.

    `takes_s`: so long before the deadline the undo begins, at most half of it.
    """
    step = {"kind": "program", "name": name, "host": host, "seen_by": seen_by, "says": says}
    return {**step, "takes_s": takes_s}


def step_nothing(why: str) -> Step:
    """Nothing is put back, because coming back is what is measured."""
    return {"kind": "nothing", "why": why}

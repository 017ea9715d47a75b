"""What a monitor process says on its standard output: one line of JSON a statement. No I/O here.

A monitor is ready once, alive again and again, and has ended once; one that ends without saying so is lost.
Moments are CLOCK_BOOTTIME of the monitor's host. Python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Union

from homeostat.kernel.errors import CorruptState


@dataclass(frozen=True)
class Ready:
    """The baseline is there, the measurement runs: the barrier before a fault.

    `priority` is what the machine permitted: fifo, nice or none.
    """

    at_ns: int
    since_ns: int
    """Due time of the first sample of the baseline; what was before is none of it."""
    pid: int
    samples: int
    rho_ns: int
    """The longest round trip of the baseline."""
    late_ns: int
    """From when on a good answer is called late."""
    lateness_ns: int
    cpu_ns: int
    priority: str


@dataclass(frozen=True)
class Alive:
    """A heartbeat."""

    at_ns: int
    samples: int
    cpu_ns: int


@dataclass(frozen=True)
class Ended:
    """Everything is on disk. `skipped`: samples that were due while the monitor could not run."""

    at_ns: int
    samples: int
    skipped: int
    lateness_max_ns: int
    cpu_ns: int


Statement = Union[Ready, Alive, Ended]
_KINDS: dict[str, type[Statement]] = {"ready": Ready, "alive": Alive, "ended": Ended}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(statement: Statement) -> bytes:
    """The line of a statement."""
    return json.dumps({_NAMES[type(statement)]: vars(statement)}).encode() + b"\n"


def decode(line: bytes) -> Statement:
    """The statement of a line; CorruptState for anything else."""
    try:
        ((name, values),) = json.loads(line).items()
        kind = _KINDS[name]
        return kind(**{each.name: values[each.name] for each in fields(kind)})
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CorruptState(f"a monitor said what is no statement: {line[:80]!r}") from None

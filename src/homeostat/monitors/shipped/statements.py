"""The JSON of monitor processes: configuration, statements on standard output, sightings of a watch.

A monitor is ready once, alive again and again, and has ended once; one that ends without saying so is lost.
A sighting is a change of one process between two looks. Moments are CLOCK_BOOTTIME of the monitor's host.
Standard library only, python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Dict, Protocol, Type, TypeVar, Union

from homeostat.kernel.errors import BadInput, CorruptState
from homeostat.kernel.processes import Identity


@dataclass(frozen=True)
class ReadyStatement:
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
class AliveStatement:
    """A heartbeat."""

    at_ns: int
    samples: int
    cpu_ns: int


@dataclass(frozen=True)
class EndedStatement:
    """Everything is on disk. `skipped`: samples that were due while the monitor could not run."""

    at_ns: int
    samples: int
    skipped: int
    lateness_max_ns: int
    cpu_ns: int


class Configuration(Protocol):
    """A dataclass that knows what is acceptable. A list in JSON is a tuple in it."""

    __dataclass_fields__: ClassVar[Dict[str, Any]]

    def checked(self: C) -> C:
        """Itself, or BadInput naming the field."""


C = TypeVar("C", bound=Configuration)


def parse_config(kind: Type[C], text: str) -> C:
    """The configuration in this JSON; BadInput names the first field that is wrong."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise BadInput("config", text, f"JSON ({error})") from None
    if not isinstance(values, dict):
        raise BadInput("config", values, "an object")
    known = [each.name for each in fields(kind)]
    for name in values:
        if name not in known:
            raise BadInput(name, values[name], f"one of {', '.join(known)}")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return kind(**given).checked()
    except TypeError as error:
        raise BadInput("config", sorted(values), str(error)) from None


Statement = Union[ReadyStatement, AliveStatement, EndedStatement]
_KINDS: dict[str, type[Statement]] = {
    "ready": ReadyStatement,
    "alive": AliveStatement,
    "ended": EndedStatement,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode_statement(statement: Statement) -> bytes:
    return json.dumps({_NAMES[type(statement)]: vars(statement)}).encode() + b"\n"


def say(voice_fd: int, statement: Statement) -> None:
    """Say it to whoever supervises. Who does not listen holds nothing up: a full pipe loses a heartbeat."""
    with contextlib.suppress(BlockingIOError):
        os.write(voice_fd, encode_statement(statement))


def decode_statement(line: bytes) -> Statement:
    """The statement of a line; CorruptState for anything else."""
    try:
        ((name, values),) = json.loads(line).items()
        kind = _KINDS[name]
        return kind(**{each.name: values[each.name] for each in fields(kind)})
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CorruptState(f"a monitor sent a line that cannot be read: {line[:80]!r}") from None


class ProcessChange(str, Enum):
    """What was seen of a process."""

    PRESENT = "present"
    GONE = "gone"
    ZOMBIE = "zombie"
    """Gone, and nobody has taken note of it."""


@dataclass(frozen=True)
class Sighting:
    """A change between two looks: not yet at `after_ns`, seen at `at_ns`. `born_ns` comes from the kernel."""

    after_ns: int
    at_ns: int
    change: ProcessChange
    identity: Identity
    born_ns: int


def sighting_line(sighting: Sighting) -> str:
    """One line of JSON: `[after, at, change, pid, start ticks, born]`."""
    who = sighting.identity
    return (
        f'[{sighting.after_ns},{sighting.at_ns},"{sighting.change.value}",'
        f"{who.pid},{who.start_ticks},{sighting.born_ns}]\n"
    )


def read_sightings(path: Path) -> tuple[Sighting, ...]:
    """The sightings of a watch's file; none when there is no file, CorruptState for a line that is none."""
    found = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break  # what a killed watch leaves
        try:
            after, at, change, pid, ticks, born = json.loads(line)
            found.append(
                Sighting(
                    int(after), int(at), ProcessChange(change), Identity(int(pid), int(ticks)), int(born)
                )
            )
        except (ValueError, TypeError) as error:
            raise CorruptState(f"{path}: line {number} is not a sighting ({error})") from None
    return tuple(found)

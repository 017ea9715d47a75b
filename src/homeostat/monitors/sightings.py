"""What a process watch saw, and its line in the watch's file. Standard library only, python3.9: it is shipped
to hosts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from homeostat.kernel.errors import CorruptState
from homeostat.kernel.processes import Identity


class Change(str, Enum):
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
    change: Change
    identity: Identity
    born_ns: int


def line_of(sighting: Sighting) -> str:
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
                Sighting(int(after), int(at), Change(change), Identity(int(pid), int(ticks)), int(born))
            )
        except (ValueError, TypeError) as error:
            raise CorruptState(f"{path}: line {number} is not a sighting ({error})") from None
    return tuple(found)

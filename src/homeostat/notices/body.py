"""What a notice says, whatever its body looks like: the part of a fault that one project may read. Pure.

Formats are made from this and from nothing else, so the same notice is the same bytes at every attempt and
after every restart.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.contracts.nouns import Owner
from homeostat.notices.model import Affected, FaultPicture, Transition, notice_key


@dataclass(frozen=True, slots=True)
class Frame:
    """For whom a body is made, and how long it may be (never less than 4 KiB).

    `public_url` is where people reach the API, empty when nobody said.
    """

    destination: str
    subscription: str
    owner: Owner
    limit_bytes: int
    public_url: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """One notice in plain words. `affected` has only what the subscription's project may read.

    `is_over`: the fault cleared, and when, why and after how long means something. `drill`: the run that
    broke it on purpose, empty for none.
    """

    key: str
    transition: str
    fault: str
    kind: str
    severity: str
    about: str
    owner: Owner
    reason: str
    raised_ns: int
    affected: tuple[Affected, ...] = ()
    is_over: bool = False
    cleared_ns: int | None = None
    cleared_reason: str = ""
    outage_ms: float | None = None
    drill: str = ""


def said_of(frame: Frame, fault: FaultPicture, transition: Transition) -> Said:
    """What is said of this transition: of a fault that cleared since, `raised` says what it said then."""
    over = transition is Transition.CLEARED
    return Said(
        key=notice_key(frame.destination, fault.id, transition),
        transition=transition.value,
        fault=fault.id,
        kind=fault.kind.value,
        severity=fault.severity.value,
        about=fault.about,
        owner=fault.owner,
        reason=fault.reason,
        raised_ns=fault.raised_ns,
        affected=fault.affected_of(frame.owner),
        is_over=over,
        cleared_ns=fault.cleared_ns if over else None,
        cleared_reason=fault.cleared_reason if over else "",
        outage_ms=fault.outage_ms if over else None,
        drill=fault.drill,
    )


def link_to(frame: Frame, said: Said) -> str:
    """Where the whole fault can be read."""
    return f"{frame.public_url}/api/v1/faults/{said.fault}"

"""What a drill breaks: the fault, by its injector, and what it hits. Frozen, checked by its fields alone.

Not the place where it is injected (`injectors`, `breaking`), nor where the target is chosen (`preparation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from homeostat.drills.naming import STRICT, Host, Name
from homeostat.drills.spans import Some


class Choice(StrEnum):
    """Which of the candidates is hit. Never by chance: the same seed, the same target."""

    FIRST = "first"
    """The first by name."""
    SEEDED = "seeded"
    EACH = "each"
    """One run for each."""
    HOLDER = "holder"
    """The one that holds the address at that moment."""
    NON_HOLDER = "non-holder"


@dataclass(frozen=True, slots=True)
class Victim:
    """What the fault hits: a service on one host, chosen by rule; or one host by name."""

    __pydantic_config__ = STRICT

    service: Name | None = None
    host: Host | None = None
    choose: Choice = Choice.SEEDED


@dataclass(frozen=True, slots=True)
class Kill:
    """End the exact processes that were found."""

    __pydantic_config__ = STRICT

    injector: Literal["kill"]
    target: Victim
    signal: Literal["SIGKILL", "SIGTERM"] = "SIGKILL"
    collateral: bool = False
    """Whether a process that serves others, too, may be hit."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop the processes for a while, then let them go on."""

    __pydantic_config__ = STRICT

    injector: Literal["freeze"]
    target: Victim
    hold_ms: Annotated[Some, Field(alias="hold")]


@dataclass(frozen=True, slots=True)
class Cpu:
    """One busy worker pinned to every CPU that is allowed."""

    __pydantic_config__ = STRICT

    injector: Literal["cpu"]
    target: Victim
    hold_ms: Annotated[Some, Field(alias="hold")]


@dataclass(frozen=True, slots=True)
class Disk:
    """Direct writes into one bounded file, in a folder on the service's own data device."""

    __pydantic_config__ = STRICT

    injector: Literal["disk"]
    target: Victim
    hold_ms: Annotated[Some, Field(alias="hold")]
    folder: Annotated[str, Field(pattern=r"^/\S*$")] | None = None
    """On the host that is hit; on the disk of the service's own data when it is not given."""
    file_mib_max: Annotated[int, Field(ge=1, le=2048)] = 1024
    free_gib_floor: Annotated[float, Field(gt=0)] = 1.0
    """Never less room than this."""


@dataclass(frozen=True, slots=True)
class Network:
    """Cut a host off, or make it slow to reach."""

    __pydantic_config__ = STRICT

    injector: Literal["network"]
    target: Victim
    hold_ms: Annotated[Some, Field(alias="hold")]
    effect: Literal["cut", "latency"] = "cut"
    latency_ms: Annotated[Some, Field(alias="latency")] = 100.0
    device: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")] | None = None
    """What is slowed down or cut; latency cannot do without."""
    ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = ()
    """Cut only these TCP ports."""


@dataclass(frozen=True, slots=True)
class HostOff:
    """Switch a whole host off, and on again."""

    __pydantic_config__ = STRICT

    injector: Literal["host_off"]
    target: Victim
    hold_ms: Annotated[Some, Field(alias="hold")]


Fault = Annotated[Kill | Freeze | Cpu | Disk | Network | HostOff, Field(discriminator="injector")]


def hold_ms(fault: Kill | Freeze | Cpu | Disk | Network | HostOff) -> float:
    """How long the fault lasts before it is undone; 0 for one that is an instant."""
    return 0.0 if isinstance(fault, Kill) else fault.hold_ms

"""What happened to hosts, nodes and the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from homeostat.contracts.nouns import HostId


@dataclass(frozen=True, slots=True)
class HostJoined:
    """A node reported for the first time."""

    VERSION: ClassVar[int] = 1
    host: HostId
    boot: str


@dataclass(frozen=True, slots=True)
class AgentLost:
    """The node process is silent or died; its host and guests may well be fine."""

    VERSION: ClassVar[int] = 1
    host: HostId
    reason: str


@dataclass(frozen=True, slots=True)
class AgentReturned:
    """The node process reports again."""

    VERSION: ClassVar[int] = 1
    host: HostId
    incarnation: str


@dataclass(frozen=True, slots=True)
class ObservationsLost:
    """A node's bounded list overflowed: `count` transitions nobody will ever see."""

    VERSION: ClassVar[int] = 1
    host: HostId
    count: int


@dataclass(frozen=True, slots=True)
class TermTaken:
    """A server became leader."""

    VERSION: ClassVar[int] = 1
    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class LoopCrashed:
    """A loop ended with an error that nobody expected, and was started again."""

    VERSION: ClassVar[int] = 1
    loop: str
    error: str


EVENTS = (HostJoined, AgentLost, AgentReturned, ObservationsLost, TermTaken, LoopCrashed)

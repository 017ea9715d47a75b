"""A drill is announced to our own server: one at a time on a site, and what our fault manager made of it.

The Protocol and its nouns; `unannounced` is for a site without a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from homeostat.drills.facts import BroughtBack


@dataclass(frozen=True, slots=True)
class Announced:
    """What is about to be broken."""

    run: str
    drill: str
    suite: str | None
    site: str
    hosts: tuple[str, ...]
    resources: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Noticed:
    """A fault that our own fault manager raised since the drill began, by its id."""

    fault: str
    kind: str


class Announcing(Protocol):
    """Our own server, as a drill sees it."""

    async def begin(self, run: Announced) -> None:
        """AlreadyRunning naming the holder while another drill runs on the site; NotAllowed while halted."""
        ...

    async def renew(self) -> str | None:
        """Every second. A text: stop now, and why."""
        ...

    async def injected(self, before_ns_wall: int, after_ns_wall: int) -> None:
        """The fault began between these two moments."""
        ...

    async def noticed(self) -> list[Noticed | BroughtBack]:
        """What was raised for these hosts and resources since `begin`, and who brought what back."""
        ...

    async def finish(self, report: dict[str, Any]) -> None:
        """The report of the run."""
        ...

"""What the pages stand on: `app.state.console`, made by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi import Request

from homeostat.contracts.nouns import SetPoint
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.web.live import Tail
from homeostat.web.sessions import Links, Sessions


@dataclass(frozen=True, slots=True)
class Console:
    """`promises` are the rooms' set points; what else pages show comes from the rooms' own APIs."""

    links: Links
    sessions: Sessions
    promises: Sequence[Callable[[Caller], Awaitable[Sequence[SetPoint]]]]
    readers: Readers
    tail: Tail
    clock: Clock


def console_of(request: Request) -> Console:
    """The parts, as a route finds them."""
    console: Console = request.app.state.console
    return console

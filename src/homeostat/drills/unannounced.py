"""A drill of a site without a server: nobody is told, and nobody notices."""

from __future__ import annotations

from typing import Any

from homeostat.drills.announcing import Announced, Noticed
from homeostat.drills.facts import BroughtBack


class Unannounced:
    """See `announcing.Announcing`. Every answer is the empty one."""

    async def begin(self, run: Announced) -> None:
        """Nobody else is known."""

    async def renew(self) -> str | None:
        """Nobody could halt it from there."""
        return None

    async def injected(self, before_ns_wall: int, after_ns_wall: int) -> None:
        """Nobody hears it."""

    async def noticed(self) -> list[Noticed | BroughtBack]:
        """Nobody listened; the engine never says that somebody did."""
        return []

    async def finish(self, report: dict[str, Any]) -> None:
        """The run's own folder has it."""

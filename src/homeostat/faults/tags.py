"""Which drill a fault belongs to, as who knows tells it. Asked for every fault: it must be in memory."""

from __future__ import annotations

from typing import Protocol

from homeostat.kernel.journal import Local, Seq


class Tags(Protocol):
    """Whose a fault is."""

    def run_of(self, about: str, host: str, owner: str, raised: Seq | Local, /) -> str:
        """The run of a drill; empty: it is no drill's. A `Local` number is of an entry to come."""

    async def reload(self) -> None:
        """Read it again: a commit had no answer, or nothing was read yet. RetryLater."""


class NoTags:
    """Nothing is broken on purpose."""

    def run_of(self, *_: object) -> str:
        """No drill's."""
        return ""

    async def reload(self) -> None:
        """Nothing to read."""

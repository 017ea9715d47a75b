"""Which rooms may act. What a person said is in a table and wins over the settings; by default none may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from homeostat.contracts.events.fleet import RoomArmed
from homeostat.fleet.store import arming_changes, load_arming
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import NotFound
from homeostat.kernel.journal import Draft, Receipt, Submission

ROOMS = ("faults", "resources")
"""Rooms that do harm."""


class Appends(Protocol):
    """`kernel.appender.Appender`."""

    async def append(self, submission: Submission) -> Receipt:
        """Commit, or raise."""
        ...


class Arming:
    """`rooms` says of each room whether it may act; read by the gate, changed by people."""

    def __init__(
        self, appender: Appends, readers: Readers, clock: Clock, armed_by_settings: Sequence[str]
    ) -> None:
        self._appender, self._readers, self._clock = appender, readers, clock
        self._by_settings = {room: room in armed_by_settings for room in ROOMS}
        self._said: dict[str, bool] = {}
        self._withheld: set[str] = set()

    @property
    def rooms(self) -> Mapping[str, bool]:
        """Room to whether it may act."""
        return {**self._by_settings, **self._said, **dict.fromkeys(self._withheld, False)}

    async def reload(self) -> None:
        """What people said before this server started."""
        said = await self._readers.read(load_arming)
        self._said = {room: armed for room, armed in said.items() if room in ROOMS}

    async def set(self, room: str, *, armed: bool, by: str) -> None:
        """Let a room act, or only observe. Nothing happens when it is so already. NotFound: no such room.

        It stops acting at once, also when nobody knows whether that was written down.
        """
        if room not in ROOMS:
            raise NotFound(f"there is no room {room!r} that does harm; known: {', '.join(ROOMS)}")
        if self._said.get(room) is armed and room not in self._withheld:
            return
        if not armed:
            self._withheld.add(room)
        now_ns = self._clock.wall_ns()
        draft = Draft(RoomArmed(room, armed, by), f"room/{room}", now_ns, "api", f"room/{room}/{now_ns}")
        changes = arming_changes(room, armed, now_ns, by)
        await self._appender.append(Submission("arming", (draft,), changes))
        self._said[room] = armed
        self._withheld.discard(room)

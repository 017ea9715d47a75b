"""How far notices are that were tried and have not ended: attempts and next times, written now and then.

It spares a new server attempts that were made already; it is no promise, and a notice may be further than
its row says. Invariants: nothing is written that has not changed, and never more than one submission at once.
"""

from __future__ import annotations

import asyncio
import contextlib

from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import Submission
from homeostat.notices import outbox, store
from homeostat.notices.board import Board
from homeostat.notices.outcomes import Appends


class Progress:
    """What was written last of each notice on a board."""

    def __init__(self, board: Board, appender: Appends, clock: Clock) -> None:
        self._board, self._appender, self._clock = board, appender, clock
        self._noted: dict[str, int] = {}

    async def run(self, every_s: float) -> None:
        """Write for ever; what cannot be written now is written the next time."""
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(RetryLater):
                await self.append()

    async def append(self) -> None:
        """Write attempts and next times of what was tried since the last time, at most one submission."""
        ahead_ns = self._clock.wall_ns() - self._clock.mono_ns()
        tried = [
            (due, at_ns) for due, at_ns in self._board.progress() if self._noted.get(due.key) != due.attempts
        ]
        if tried:
            rows = [(due.key, due.attempts, at_ns + ahead_ns) for due, at_ns in tried]
            await self._appender.append(Submission(loop=outbox.LOOP, changes=(store.note_progress(rows),)))
            self._noted.update((due.key, due.attempts) for due, _ in tried)

    def ended(self, key: str) -> None:
        """This one was told or given up."""
        self._noted.pop(key, None)

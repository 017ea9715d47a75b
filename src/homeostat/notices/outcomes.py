"""Appends the outcomes of notices, off the path: a consumer that was told never waits for our disk.

Many outcomes are one submission, or a commit of several where one of them is refused. What was being
committed when this was cancelled is committed again by `flush`: the journal knows what it holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

import structlog

from homeostat.kernel.errors import AlreadyDone, BadInput, HomeostatError, RetryLater
from homeostat.kernel.journal import Receipt, Submission, grouped
from homeostat.notices.board import Due

_AT_ONCE = 256
_GATHER_S, _GATHER_LONGEST_S = 0.005, 0.2
"""In a storm a commit for each few outcomes would take the time of those who are still to be told."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
_log = structlog.get_logger("notices")


Outcome = Callable[[], Submission]
"""Makes what is written of an end, the same each time."""


class Appends(Protocol):
    """`kernel.appender.Appender`."""

    async def append(self, submission: Submission) -> Receipt:
        """Commit, or raise."""
        ...


class Outcomes:
    """Outcomes on their way into the journal. Used on one event loop."""

    def __init__(self, appender: Appends, on_committed: Callable[[Due], None]) -> None:
        self._appender, self._on_committed = appender, on_committed
        self._waiting: deque[tuple[Due, Outcome]] = deque()
        self._there = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, due: Due, outcome: Outcome) -> None:
        """To be committed soon; then `on_committed` is called."""
        self._waiting.append((due, outcome))
        self._there.set()

    async def run(self) -> None:
        """Commit for ever."""
        while True:
            await self._there.wait()
            self._there.clear()
            await self.flush(gather=True)

    async def _gather(self) -> None:
        """Wait while more and more end: a storm of notices is told first, and written down then."""
        loop = asyncio.get_running_loop()
        count, until_s = 0, loop.time() + _GATHER_LONGEST_S
        while count < len(self._waiting) and loop.time() < until_s:
            count = len(self._waiting)
            await asyncio.sleep(_GATHER_S)

    async def flush(self, *, gather: bool = False) -> None:
        """Commit all that waits, however often the store says later. Not while `run` runs.

        With `gather` it waits a little before each commit. Deposed and CorruptState go to the caller.
        """
        wait_s = _FIRST_WAIT_S
        while self._waiting:
            if gather and len(self._waiting) < _AT_ONCE:
                await self._gather()
            batch = list(islice(self._waiting, _AT_ONCE))
            answers = await self._append([outcome() for _, outcome in batch])
            again = []
            for (due, outcome), answer in zip(batch, answers, strict=True):
                self._waiting.popleft()
                if self._is_settled(due, answer):
                    self._on_committed(due)
                else:
                    again.append((due, outcome))
            if again:
                self._waiting.extendleft(reversed(again))
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                wait_s = _FIRST_WAIT_S

    async def _append(self, all_of_them: Sequence[Submission]) -> Sequence[Receipt | BaseException]:
        """As one submission, which costs a tenth; one by one where the journal will not have them so.

        One that is there already, or refused, must not take the others with it.
        """
        if len(all_of_them) > 1:
            events = tuple(draft for each in all_of_them for draft in each.events)
            changes = grouped(change for each in all_of_them for change in each.changes)
            try:
                receipt = await self._appender.append(Submission(all_of_them[0].loop, events, changes))
            except RetryLater as error:
                return [error] * len(all_of_them)
            except HomeostatError as error:
                _log.info("outcomes are written one by one", reason=str(error))
            else:
                return [receipt] * len(all_of_them)
        return await asyncio.gather(
            *(self._appender.append(each) for each in all_of_them), return_exceptions=True
        )

    def _is_settled(self, due: Due, answer: Receipt | BaseException) -> bool:
        match answer:
            case Receipt() | AlreadyDone():
                return True
            case RetryLater():
                return False
            case BadInput():
                # Somebody changed the tables by hand; sending it again would not cure that.
                _log.error("the outcome of a notice was refused", notice=due.key, reason=str(answer))
                return True
            case _:
                raise answer

"""Removes old history in small batches: events, and rows of notices, silences, acts and faults that ended.

One number decides: everything up to it is older than the setting, read by every loop, and below every open
item; what lies behind it stays whole. The search is a reader's, the removal is by key and the appender's, a
bounded batch at a time, others first. A drill goes with the last of its faults. The last event of the
journal is never removed: the next ones count from its number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, Select, func, select, true

from homeostat.components import retention_rules
from homeostat.contracts.events.fleet import JournalPruned
from homeostat.kernel import database
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import NewEvent, Receipt, Submission
from homeostat.kernel.journal_rules import PrunableRows, RetentionRules
from homeostat.server.settings import RetentionSettings

FIRST_LOOK_S = 60.0
"""A server that has just started has better things to do."""
YIELDS_S = 5.0
"""One batch lets others go first so long: a server that is always busy must get rid of its history too."""
LOOP = "retention"
_DAY_NS = 86_400 * 10**9
_log = structlog.get_logger(LOOP)


class Writer(Protocol):
    """What is needed of the appender."""

    @property
    def waiting(self) -> int: ...

    async def append(self, submission: Submission) -> Receipt: ...


EVENTS = PrunableRows("events", database.journal, database.journal.c.seq, database.journal.c.seq, true())
"""Last: a journal outlives what is derived from it."""


def prune_bound(
    connection: Connection, before_ns: int, now_ns: int, rules: Iterable[RetentionRules] | None = None
) -> int:
    """The number up to which everything may go; 0: nothing may.

    Times are those of the events' sources: one from the future says nothing about age and is not looked at.
    """
    events = database.journal.c
    fresh = select(events.seq).where(events.at_ns >= before_ns, events.at_ns <= now_ns)
    queries = [
        select(func.max(events.seq) - 1),
        select(func.min(database.cursor.c.seq)),
        *(
            query
            for rule in (retention_rules() if rules is None else rules)
            for query in rule.bounds(before_ns)
        ),
        fresh.order_by(events.seq).limit(1).with_only_columns(events.seq - 1),
    ]
    found = [connection.execute(query).scalar() for query in queries]
    return 0 if found[0] is None else max(0, min(int(each) for each in found if each is not None))


class Retention:
    """One for a server; `run` is a task of its own."""

    def __init__(
        self,
        appender: Writer,
        readers: Readers,
        clock: Clock,
        settings: RetentionSettings,
        rules: Sequence[RetentionRules] | None = None,
    ) -> None:
        """Without `rules` those of all components."""
        self._appender, self._readers, self._clock, self._settings = appender, readers, clock, settings
        self._rules = retention_rules() if rules is None else tuple(rules)
        self._prunable = (*(rows for rule in self._rules for rows in rule.prunable), EVENTS)
        self._timed = tuple(rows for rule in self._rules for rows in rule.timed)

    async def run(self) -> None:
        """Look a minute after the start, then every `every_s`, for ever."""
        await asyncio.sleep(min(FIRST_LOOK_S, self._settings.every_s))
        while True:
            try:
                await self.prune()
            except RetryLater as error:
                _log.warning("old history could not be removed; tried again", reason=str(error))
            await asyncio.sleep(self._settings.every_s)

    async def prune(self) -> dict[str, int]:
        """Remove all that may go now; how many rows of each kind that was. RetryLater: some may be gone."""
        now_ns = self._clock.wall_ns()
        before_ns = now_ns - round(self._settings.days * _DAY_NS)
        through = await self._readers.read(
            lambda connection: prune_bound(connection, before_ns, now_ns, self._rules)
        )
        counts = dict.fromkeys((kind.name for kind in self._prunable), 0)
        for kind in self._timed:
            counts[kind.name] = await self._prune(kind, before_ns)
        if not through or not await self._readers.read(lambda connection: self._any(connection, through)):
            return counts
        draft = NewEvent(JournalPruned(through), "journal", now_ns, "server", f"journal/{through}")
        await self._appender.append(Submission(LOOP, (draft,)))
        for kind in self._prunable:
            counts[kind.name] = await self._prune(kind, through)
        _log.info("old history was removed", through=through, **counts)
        return counts

    def _any(self, connection: Connection, through: int) -> bool:
        return any(
            connection.execute(kind.victims(through, 1)).first() is not None for kind in self._prunable
        )

    async def _prune(self, kind: PrunableRows, through: int) -> int:
        query, count = kind.victims(through, self._settings.batch), 0
        while keys := await self._readers.read(_keys(query)):
            await self._let_others_go_first()
            await self._appender.append(Submission(LOOP, changes=(kind.removal(keys),)))
            count += len(keys)
        return count

    async def _let_others_go_first(self) -> None:
        """A pause, and then until nobody waits for the disk; on a disk that is always busy, for a while."""
        await asyncio.sleep(self._settings.pause_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(YIELDS_S):
                while self._appender.waiting:  # noqa: ASYNC110 - nobody is told when the queue is empty
                    await asyncio.sleep(0.01)


def _keys(query: Select[Any]) -> Callable[[Connection], list[Any]]:
    return lambda connection: list(connection.execute(query).scalars())

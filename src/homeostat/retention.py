"""Old history goes, in small bites: journal events, and rows of notices, silences, acts and faults that are
over.

One number decides: everything up to it is older than the setting, read by every loop, and below every open
item; what lies behind it stays whole. The search is a reader's, the removal is by key and the appender's, a
bounded batch at a time, others first. A drill goes with the last of its faults. The last event of the journal
is never removed: the next ones count from its number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import structlog
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Delete,
    Select,
    Table,
    bindparam,
    delete,
    func,
    or_,
    select,
    true,
)

from homeostat.contracts.events.fleet import JournalPruned
from homeostat.drills.store import run_table
from homeostat.faults.model import FaultState
from homeostat.faults.store import fault_table
from homeostat.fleet.store import action_table
from homeostat.kernel import database
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.journal import Change, Draft, Receipt, Submission
from homeostat.notices import store as notices
from homeostat.notices.silence_store import silence_table
from homeostat.settings import RetentionSettings

FIRST_LOOK_S = 60.0
"""A server that has just started has better things to do."""
YIELDS_S = 5.0
"""How long one batch lets others go first: a server that is always busy must get rid of its history too."""
LOOP = "retention"
_DAY_NS = 86_400 * 10**9
_log = structlog.get_logger(LOOP)


class Writer(Protocol):
    """What is needed of the appender."""

    @property
    def waiting(self) -> int: ...

    async def append(self, submission: Submission) -> Receipt: ...


@dataclass(frozen=True)
class Kind:
    """Rows of one table that may go: those numbered up to the bound that are `over`."""

    name: str
    table: Table
    key: Column[Any]
    number: Column[Any]
    over: ColumnElement[bool]

    def victims(self, bound: int, limit: int) -> Select[Any]:
        """The keys of at most `limit` of them, oldest first."""
        query = select(self.key).where(self.number <= bound, self.over)
        return query.order_by(self.number).limit(limit)

    @cached_property
    def _removal(self) -> Delete:
        return delete(self.table).where(self.key == bindparam("gone"), self.over)

    def removal(self, keys: list[Any]) -> Change:
        """These rows are gone with the commit, unless they have come to life again."""
        return Change(self._removal, tuple({"gone": key} for key in keys))


KINDS = (
    Kind("notices", notices.outbox, notices.outbox.c.key, notices.outbox.c.queued_seq, notices.IS_OVER),
    Kind(
        "acts", action_table, action_table.c.id, action_table.c.intended_seq,
        action_table.c.outcome.is_not(None),
    ),
    Kind(
        "faults", fault_table, fault_table.c.id, fault_table.c.raised_seq,
        fault_table.c.state == FaultState.CLEARED.value,
    ),
    Kind("drills", run_table, run_table.c.run, run_table.c.ended_seq, run_table.c.ended_seq.is_not(None)),
    Kind("events", database.journal, database.journal.c.seq, database.journal.c.seq, true()),
)  # fmt: skip
"""In this order: a journal outlives what is derived from it."""
SILENCES = Kind("silences", silence_table, silence_table.c.id, silence_table.c.ends_ns, true())
"""Numbered by their ends: those go that ended before the time. A notice says itself why it was not sent."""


def bound(connection: Connection, before_ns: int, now_ns: int) -> int:
    """The number up to which everything may go; 0: nothing may.

    Times are those of the events' sources: one from the future says nothing about age and is not looked at.
    """
    events, faults, box = database.journal.c, fault_table.c, notices.outbox.c
    awaited = select(box.fault).where(~notices.IS_OVER)
    young = or_(
        faults.state != FaultState.CLEARED.value,
        faults.cleared_ns.is_(None),
        faults.cleared_ns >= before_ns,
        faults.id.in_(awaited),
    )
    fresh = select(events.seq).where(events.at_ns >= before_ns, events.at_ns <= now_ns)
    queries = (
        select(func.max(events.seq) - 1),
        select(func.min(database.cursor.c.seq)),
        select(func.min(box.queued_seq) - 1).where(~notices.IS_OVER),
        select(func.min(action_table.c.intended_seq) - 1).where(action_table.c.outcome.is_(None)),
        select(func.min(faults.raised_seq) - 1).where(young),
        fresh.order_by(events.seq).limit(1).with_only_columns(events.seq - 1),
    )
    found = [connection.execute(query).scalar() for query in queries]
    return 0 if found[0] is None else max(0, min(int(each) for each in found if each is not None))


class Retention:
    """One for a server; `run` is a task of its own."""

    def __init__(self, appender: Writer, readers: Readers, clock: Clock, settings: RetentionSettings) -> None:
        self._appender, self._readers, self._clock, self._settings = appender, readers, clock, settings

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
        through = await self._readers.read(lambda connection: bound(connection, before_ns, now_ns))
        counts = dict.fromkeys((kind.name for kind in KINDS), 0)
        counts[SILENCES.name] = await self._prune(SILENCES, before_ns)
        if not through or not await self._readers.read(lambda connection: _any(connection, through)):
            return counts
        draft = Draft(JournalPruned(through), "journal", now_ns, "server", f"journal/{through}")
        await self._appender.append(Submission(LOOP, (draft,)))
        for kind in KINDS:
            counts[kind.name] = await self._prune(kind, through)
        _log.info("old history was removed", through=through, **counts)
        return counts

    async def _prune(self, kind: Kind, through: int) -> int:
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


def _any(connection: Connection, through: int) -> bool:
    return any(connection.execute(kind.victims(through, 1)).first() is not None for kind in KINDS)


def _keys(query: Select[Any]) -> Callable[[Connection], list[Any]]:
    return lambda connection: list(connection.execute(query).scalars())

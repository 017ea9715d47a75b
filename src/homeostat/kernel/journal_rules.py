"""The rules that a component gives for its part of the journal: what may be removed, and how a replay
follows.

`server.retention` and `server.replay` add them up, read the journal, remove and compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Column, ColumnElement, Delete, Select, Table, bindparam, delete, select

from homeostat.kernel.journal import RowChange


@dataclass(frozen=True)
class PrunableRows:
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

    def removal(self, keys: list[Any]) -> RowChange:
        """These rows are gone with the commit, unless they have come to life again."""
        return RowChange(self._removal, tuple({"gone": key} for key in keys))


@dataclass(frozen=True)
class RetentionRules:
    """The rules of one component.

    `prunable` are its rows that go with the events, by number; `timed` those numbered by their ends, which go
    when these lie before the time. `bounds(before_ns)` are queries for numbers up to which everything may go
    as far as this component is concerned; None: everything.
    """

    prunable: tuple[PrunableRows, ...] = ()
    timed: tuple[PrunableRows, ...] = ()
    bounds: Callable[[int], Sequence[Select[Any]]] = lambda _before_ns: ()


Rows = dict[str, dict[str, object]]
"""By key: the columns that the journal determines."""


def difference(column: str, wanted: object, found: object) -> str:
    """Says that a column is not what the events say; empty when it is."""
    return "" if found == wanted else f"{column} is {found!r} in the table and {wanted!r} by the events"


@dataclass(frozen=True, slots=True)
class ReplayedTable:
    """A table that events determine. `number` is the column with the number of the event that began a row.

    `compare` gets a column, its value by the events and its value in the table, and says what is wrong.
    """

    name: str
    table: Table
    key: str
    number: str | None = None
    compare: Callable[[str, object, object], str] = difference


@dataclass(slots=True)
class ReplayedRows:
    """The rows so far. `first` is the oldest number that is still there, 0 before the first.

    `unjudged` are keys of which the events do not say all.
    """

    tables: dict[str, Rows]
    first: int = 0
    unjudged: set[str] = field(default_factory=set)

    def of(self, table: str) -> Rows:
        return self.tables[table]

    def begin(self, table: str, key: str, seq: int, row: Mapping[str, object]) -> str:
        """A row begins; says what is wrong with that, empty when nothing is."""
        if key in self.tables[table] and key not in self.unjudged:
            return f"event {seq}: {table} {key} begins a second time"
        self.tables[table][key] = dict(row)
        return ""

    def end(self, table: str, key: str, seq: int, ended: Mapping[str, object]) -> str:
        """A row ends; says what is wrong with that. One that began before the oldest event is no error."""
        row = self.tables[table].get(key)
        if row is not None:
            row.update(ended)
        elif self.first == 1 and key not in self.unjudged:
            return f"event {seq}: {table} {key} ends and never began"
        return ""


@dataclass(frozen=True, slots=True)
class ReplayRules:
    """The rules of one component. `follow(rows, seq, subject, event)` says what is wrong, else nothing."""

    tables: tuple[ReplayedTable, ...]
    follow: Callable[[ReplayedRows, int, str, object], str]

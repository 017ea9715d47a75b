"""The journal's records: what a writer submits and what a reader gets.

An event is an envelope (seq, kind, version, subject, cause, trace, at_ns, origin) and a payload. Every event
carries the sequence number of its cause. Nothing here writes; the appender is the one writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NewType

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Executable

Seq = NewType("Seq", int)

Upcast = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Local:
    """The n-th event of the same submission, before it has a sequence number."""

    index: int


@dataclass(frozen=True, slots=True)
class Draft:
    """An event on its way in. `at_ns` is wall time at the source, `origin` who saw or did it."""

    event: object
    subject: str
    at_ns: int
    origin: str
    trace: str
    cause: Seq | Local | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A change of rows in the transaction of the events. A `Local` among the values becomes its seq."""

    statement: Executable
    values: tuple[Mapping[str, object], ...] = ()


def grouped(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The same changes with the rows of one statement together: one execution instead of one a row.

    What is done to one table stays in its order; changes of different tables change places, so none of them
    may read another's table.
    """
    tables: dict[object, list[tuple[Executable, list[Mapping[str, object]]]]] = {}
    for change in changes:
        runs = tables.setdefault(getattr(change.statement, "table", None), [])
        if runs and runs[-1][0] is change.statement and runs[-1][1] and change.values:
            runs[-1][1].extend(change.values)
        else:
            runs.append((change.statement, list(change.values)))
    return tuple(Change(statement, tuple(values)) for runs in tables.values() for statement, values in runs)


@dataclass(frozen=True, slots=True)
class Submission:
    """Events, row changes and cursor moves that are committed together or not at all.

    `loop` with an event's cause, kind and subject is unique in the journal, so that a re-run is harmless:
    it fails with `AlreadyDone` and changes nothing.
    """

    loop: str
    events: tuple[Draft, ...] = ()
    changes: tuple[Change, ...] = ()
    cursor: Seq | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The sequence numbers of a committed submission's events, in order."""

    seqs: tuple[Seq, ...]


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event as read. `event` is None when this version does not know the kind: keep it, skip it."""

    seq: Seq
    kind: str
    version: int
    subject: str
    cause: Seq | None
    trace: str
    at_ns: int
    origin: str
    payload: dict[str, Any]
    event: object | None


class Catalogue:
    """The closed list of event classes, and how old payloads become new ones.

    `upcasts[(kind, version)]` turns a payload of that version into the next one's.
    """

    def __init__(
        self, events: Iterable[type], upcasts: Mapping[tuple[str, int], Upcast] | None = None
    ) -> None:
        self._versions: dict[str, int] = {}
        self._adapters: dict[str, TypeAdapter[Any]] = {}
        self._upcasts = dict(upcasts or {})
        for event in events:
            kind = event.__name__
            if kind in self._versions:
                raise ValueError(f"two events are called {kind}")
            self._versions[kind] = event.VERSION  # type: ignore[attr-defined]
            self._adapters[kind] = TypeAdapter(event)

    def encode(self, event: object) -> tuple[str, int, bytes]:
        """Kind, version and JSON payload of an event that belongs to this catalogue."""
        kind = type(event).__name__
        return kind, self._versions[kind], orjson.dumps(event)

    def decode(self, kind: str, version: int, payload: dict[str, Any]) -> object | None:
        """The event at its present version; None for an unknown kind or one from the future."""
        present = self._versions.get(kind)
        if present is None or version > present:
            return None
        for step in range(version, present):
            payload = self._upcasts[kind, step](payload)
        return self._adapters[kind].validate_python(payload)  # type: ignore[no-any-return]

    def kinds(self) -> frozenset[str]:
        """The names of all events."""
        return frozenset(self._versions)

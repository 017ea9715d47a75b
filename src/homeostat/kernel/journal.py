"""The journal's records: what a writer submits and what a reader gets.

An event is an envelope (seq, kind, version, subject, cause, trace, at_ns, origin) and a payload. Every event
carries the sequence number of its cause. Nothing here writes; the appender is the one writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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
    """An event on its way into the journal. `at_ns` is wall time at the source, `origin` who saw or did it."""

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


@dataclass(frozen=True)
class Catalogue:
    """The closed list of event classes, and how old payloads become new ones.

    `upcasts[(kind, version)]` turns a payload of that version into the next one's.
    """

    events: tuple[type, ...]
    upcasts: Mapping[tuple[str, int], Upcast] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_kind: dict[str, tuple[int, TypeAdapter[Any]]] = {}
        for event in self.events:
            if event.__name__ in by_kind:
                raise ValueError(f"two events are called {event.__name__}")
            by_kind[event.__name__] = (event.VERSION, TypeAdapter(event))  # type: ignore[attr-defined]
        object.__setattr__(self, "_by_kind", by_kind)

    def encode(self, event: object) -> tuple[str, int, bytes]:
        """Kind, version and payload of an event that belongs to this catalogue."""
        kind = type(event).__name__
        version, _ = self._by_kind[kind]  # type: ignore[attr-defined]
        return kind, version, orjson.dumps(event)

    def decode(self, kind: str, version: int, payload: dict[str, Any]) -> object | None:
        """The event, brought to its present version; None for an unknown kind or a version from the future."""
        known = self._by_kind.get(kind)  # type: ignore[attr-defined]
        if known is None or version > known[0]:
            return None
        for step in range(version, known[0]):
            payload = self.upcasts[kind, step](payload)
        return known[1].validate_python(payload)  # type: ignore[no-any-return]

    def kinds(self) -> Iterable[str]:
        """The names of all events."""
        return self._by_kind.keys()  # type: ignore[attr-defined, no-any-return]

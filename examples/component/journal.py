"""The notes' table, events, sentences, replay, and the invariant that only an armed component wipes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Column, Table, Text

from homeostat.contracts.component import Violation
from homeostat.contracts.events.fleet import ComponentArmed
from homeostat.kernel.database import METADATA
from homeostat.kernel.journal_rules import ReplayedRows, ReplayedTable, ReplayRules

note = Table("note", METADATA, Column("host", Text, primary_key=True), Column("text", Text))


@dataclass(frozen=True, slots=True)
class NoteLeft:
    """Somebody left a note about a host."""

    VERSION: ClassVar[int] = 1
    host: str
    text: str


@dataclass(frozen=True, slots=True)
class NotesWiped:
    """All notes are gone."""

    VERSION: ClassVar[int] = 1
    by: str


EVENTS = (NoteLeft, NotesWiped)


def sentence(event: object, _about: str) -> str:
    """What became of notes."""
    match event:
        case NoteLeft():
            return f"note about {event.host}: {event.text}"
        case NotesWiped():
            return f"{event.by} wiped all notes"
    return ""


def _follow(rows: ReplayedRows, _seq: int, _subject: str, event: object) -> str:
    match event:
        case NoteLeft():
            rows.of("note")[event.host] = {"text": event.text}
        case NotesWiped():
            rows.of("note").clear()
    return ""


REPLAY = ReplayRules((ReplayedTable("note", note, "host"),), _follow)


def check_wiped_when_armed(evidence: Any) -> Iterator[Violation]:
    """Notes are wiped only while people let this component act."""
    armed = False
    for each in evidence.record.events:
        match each.event:
            case ComponentArmed(component="notes"):
                armed = each.event.armed
            case NotesWiped() if not armed:
                yield Violation("notes are wiped only when armed", each.subject, f"event {each.seq} did")

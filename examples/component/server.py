"""Notes in a server: the service, its set point, its routes and its page."""

from __future__ import annotations

from dataclasses import dataclass

from examples.component.journal import NoteLeft, NotesWiped, note
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import delete, insert, select

from homeostat.contracts.component import ExposureRow, OverviewPanel, ServedComponent, ServerParts
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, SetPoint, SetPointState
from homeostat.fleet.gate import Arming
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import NotAllowed
from homeostat.kernel.http import CurrentCaller
from homeostat.kernel.journal import JournalAppender, NewEvent, RowChange, Submission
from homeostat.web.page_route import CurrentVisitor, PageRoute, show_page

router = APIRouter(prefix="/api/v1/notes", tags=["notes"])
pages = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Notes:
    """All that the routes stand on."""

    parts: ServerParts

    async def rows(self) -> list[dict[str, str]]:
        """The notes, by host."""
        query = select(note).order_by(note.c.host)
        return await self.parts.find(Readers).read(
            lambda connection: [dict(row) for row in connection.execute(query).mappings()]
        )

    async def append(self, event: object, subject: str, *changes: RowChange) -> None:
        """An event and its rows."""
        at_ns = self.parts.find(Clock).wall_ns()
        new = NewEvent(event, subject, at_ns, "notes", f"{subject}/{at_ns}")
        await self.parts.find(JournalAppender).append(Submission("notes", (new,), changes))

    async def set_points(self, _caller: Caller) -> tuple[SetPoint, ...]:
        """Few notes."""
        most, found = self.parts.section("notes").notes_max, len(await self.rows())
        state = SetPointState.KEPT if found <= most else SetPointState.BROKEN
        return (SetPoint("notes", "notes that are left", most, "notes", found, state),)

    async def panel(self, _caller: Caller) -> OverviewPanel:
        """The number of notes at the top of the front page."""
        return OverviewPanel(headline=f"notes left: {len(await self.rows())}")


async def assemble(parts: ServerParts) -> ServedComponent:
    """Nothing runs."""
    notes = Notes(parts)
    return ServedComponent(state={"notes": notes}, set_points=(notes.set_points,), panels=(notes.panel,))


async def exposure(parts: ServerParts, host: HostId) -> list[ExposureRow]:
    """The note about a host that would die."""
    rows = [row for row in await Notes(parts).rows() if row["host"] == host]
    return [ExposureRow("notes", f"host/{host}", INFRASTRUCTURE, row["text"]) for row in rows]


class NoteText(BaseModel):
    """The body of a PUT."""

    text: str


@router.get("")
async def list_notes(_caller: CurrentCaller, request: Request) -> dict[str, list[dict[str, str]]]:
    """All notes."""
    return {"items": await request.app.state.notes.rows()}


@router.put("/{host}")
async def leave_note(host: str, body: NoteText, _caller: CurrentCaller, request: Request) -> None:
    """Leave a note; it replaces an earlier one."""
    old, new = delete(note).where(note.c.host == host), {"host": host, "text": body.text}
    changes = RowChange(old), RowChange(insert(note), (new,))
    await request.app.state.notes.append(NoteLeft(host, body.text), f"host/{host}", *changes)


@router.delete("")
async def wipe_notes(caller: CurrentCaller, request: Request) -> None:
    """Wipe all notes, when people let this component act."""
    notes: Notes = request.app.state.notes
    if not notes.parts.find(Arming).components["notes"]:
        raise NotAllowed("notes only observes; `homeostat arm notes` lets it act")
    await notes.append(NotesWiped(caller.name), "notes", RowChange(delete(note)))


@pages.get("/notes")
async def notes_page(request: Request, visitor: CurrentVisitor) -> Response:
    """The notes in a table."""
    rows = [row.values() for row in await request.app.state.notes.rows()]
    columns = ("host", "text")
    return show_page(request, "table.html", visitor, "notes", title="Notes", columns=columns, rows=rows)

"""The front page with set points and the components' panels; the journal page; the stream of events.

The panels come from the components, each with what the caller of the session may read. Reads only.
"""

from __future__ import annotations

import weakref
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from homeostat.contracts.component import PanelPlace
from homeostat.contracts.journal_view import JournalView
from homeostat.contracts.nouns import SetPointState
from homeostat.kernel.access import Role
from homeostat.kernel.clock import iso
from homeostat.kernel.journal import Envelope, Seq
from homeostat.web.page_route import CurrentConsole, CurrentVisitor, PageRoute, page, show_page
from homeostat.web.stream import JournalPages, JournalSearch, PageStream

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


JOURNAL_ROWS = 60
Word = Annotated[str, Query(max_length=200)]


@router.get("/")
async def overview(request: Request, visitor: CurrentVisitor, console: CurrentConsole) -> Response:
    """Set points, and a panel of each component that has one."""
    caller = visitor.caller
    promises = await console.set_points(caller)
    panels = [await panel(caller) for panel in console.panels]
    shown: dict[PanelPlace, list[str]] = {place: [] for place in PanelPlace}
    for panel in panels:
        if panel.template:
            shown[panel.place].append(page(panel.template, visitor=visitor, **panel.values))
    return show_page(
        request,
        "overview.html",
        visitor,
        "overview",
        promises=promises,
        kept=sum(row.standing is SetPointState.KEPT for row in promises),
        broken=[row.promise for row in promises if row.standing is SetPointState.BROKEN],
        panels=panels,
        shown={place.name: parts for place, parts in shown.items()},
        is_admin=caller.role is Role.ADMIN,
    )


@router.get("/journal")
async def journal_page(  # noqa: PLR0913 - a search has this many fields
    request: Request,
    visitor: CurrentVisitor,
    console: CurrentConsole,
    kind: Word = "",
    subject: Word = "",
    text: Word = "",
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """Newest first; the stream adds rows on top of the first page."""
    search = JournalSearch(kind, subject.strip(), text.strip())
    pages = JournalPages(console.tail.journal, console.readers, console.view.visible)
    found = await pages.page(visitor.caller, search, before, JOURNAL_ROWS)
    since = await console.tail.journal.head() if not found.events else found.events[0].seq
    asked = {"kind": search.kind, "subject": search.subject, "text": search.text}
    wanted = {name: value for name, value in asked.items() if value}
    return show_page(
        request,
        "journal.html",
        visitor,
        "journal",
        events="/console/events?" + urlencode({**wanted, "journal": "1", "since": since}),
        rows=[journal_row(console.view, each) for each in found.events],
        older=None if found.older is None else "?" + urlencode({**wanted, "before": found.older}),
        newest="?" + urlencode(wanted),
        is_first=before is None,
        search=search,
        kinds=console.view.kinds,
    )


def journal_row(view: JournalView, event: Envelope) -> dict[str, object]:
    noun, _, name = event.subject.partition("/")
    fault = name if noun == "fault" else str(event.payload.get("fault", ""))
    return {
        "seq": event.seq,
        "at": iso(event.at_ns),
        "kind": event.kind,
        "subject": event.subject,
        "by": event.origin,
        "what": view.sentence(event.event, event.kind, event.subject),
        "fault": fault,
    }


@router.get("/events")
async def events(  # noqa: PLR0913 - a search has this many fields
    visitor: CurrentVisitor,
    console: CurrentConsole,
    journal: bool = False,
    since: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    kind: Word = "",
    subject: Word = "",
    text: Word = "",
) -> Response:
    """The stream that keeps an open page current."""
    head = await console.tail.journal.head()
    place = console.tail.enter(visitor.caller)
    stream = PageStream(
        tail=console.tail,
        place=place,
        pages=JournalPages(console.tail.journal, console.readers, console.view.visible),
        sessions=console.sessions,
        secret=visitor.secret,
        since=head if since is None else Seq(min(head, since)),
        search=JournalSearch(kind, subject, text) if journal else None,
        rows=lambda found: page("rows.html", rows=[journal_row(console.view, each) for each in found]),
    )
    answer = StreamingResponse(
        stream.messages(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )
    weakref.finalize(answer, place.leave)  # also of one that nobody ever sends
    return answer

"""The pages. Each reads through the functions of the rooms' own APIs, as the caller of the session.

A page is its own part: its element `#live` is fetched again, from the same address, when the stream says that
something changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from homeostat.contracts.nouns import Standing
from homeostat.faults import api as faults
from homeostat.faults.explanation import explained, sentence
from homeostat.faults.model import FaultState
from homeostat.fleet import api as fleet
from homeostat.fleet.model import Topology
from homeostat.kernel.access import Role
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import NotAllowed
from homeostat.kernel.journal import Envelope, Seq
from homeostat.notices import api as notices
from homeostat.notices import subscriptions_api as subscriptions
from homeostat.notices.views import NAME_PATTERN
from homeostat.resources import api as resources
from homeostat.web import figures
from homeostat.web.assets import assets
from homeostat.web.console import Console, console_of
from homeostat.web.edge import COOKIE, CurrentVisitor, PageRoute, WritingVisitor
from homeostat.web.live import Stream
from homeostat.web.picture import lanes, picture
from homeostat.web.rendering import page
from homeostat.web.search import JournalPages, Search, kinds
from homeostat.web.sessions import SESSION_S, Visitor

RECENT = 6
JOURNAL_ROWS = 60
HOME = "/console/"

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)
front = APIRouter(route_class=PageRoute, include_in_schema=False)

Parts = Annotated[Console, Depends(console_of)]
Word = Annotated[str, Query(max_length=200)]


def _faults(request: Request) -> faults.FaultsApi:
    parts: faults.FaultsApi = request.app.state.faults
    return parts


def _notices(request: Request) -> subscriptions.NoticesApi:
    parts: subscriptions.NoticesApi = request.app.state.notices
    return parts


def _topology(request: Request) -> Callable[[], Topology]:
    topology: Callable[[], Topology] = request.app.state.topology
    return topology


FaultParts = Annotated[faults.FaultsApi, Depends(_faults)]
NoticeParts = Annotated[subscriptions.NoticesApi, Depends(_notices)]
CurrentTopology = Annotated[Callable[[], Topology], Depends(_topology)]


def show_page(request: Request, template: str, visitor: Visitor, here: str, **values: object) -> HTMLResponse:
    """A page of somebody who is logged in. `here` is its entry in the navigation."""
    query = f"?{request.url.query}" if request.url.query else ""
    own = request.url.path + query
    shown = {"visitor": visitor, "here": here, "own": own, "events": "/console/events", **values}
    return HTMLResponse(page(template, **shown))


@front.get("/")
async def index() -> Response:
    """The dashboard is what a browser looks for."""
    return RedirectResponse(HOME, 303)


@router.get("/static/{version}/{name:path}")
async def static(version: str, name: str) -> Response:
    """Our own files and the vendored ones."""
    found = assets().get(name)
    if found is None or found.version != version:
        raise HTTPException(404, "there is no such file")
    kept = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found.body, media_type=found.media_type, headers=kept)


@router.get("/enter")
async def enter(
    request: Request, console: Parts, key: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Use up a one-time link.

    The answer is a page and no redirect: a browser that came from elsewhere would not send a SameSite=Strict
    cookie along with a redirect, but it does when this page of ours leads on.
    """
    caller = console.links.take(key)
    if caller is None:
        raise HTTPException(401, "this link was used before, or it is older than a minute")
    visitor = await console.sessions.open(caller)
    response = HTMLResponse(page("enter.html", home=HOME))
    response.set_cookie(
        COOKIE,
        visitor.secret,
        max_age=SESSION_S,
        path="/console",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/leave")
async def leave(visitor: WritingVisitor, console: Parts) -> Response:
    """Log out."""
    await console.sessions.close(visitor)
    response = HTMLResponse(page("problem.html", status=200, message="You are logged out."))
    response.delete_cookie(COOKIE, path="/console", httponly=True, samesite="strict")
    return response


@router.get("/")
async def overview(
    request: Request,
    visitor: CurrentVisitor,
    console: Parts,
    fault_parts: FaultParts,
    topology: CurrentTopology,
) -> Response:
    """Every promise, every host, every open fault."""
    caller = visitor.caller
    promises = [row for promise in console.promises for row in await promise(visitor.caller)]
    rows = (await resources.list_resources(caller, topology())).items
    nodes = {node.host: node for node in (await fleet.list_nodes(caller, topology())).items}
    listed = [
        await faults.list_faults(caller, fault_parts, state, limit)
        for state, limit in ((FaultState.OPEN, 100), (FaultState.CLEARING, 100), (FaultState.CLEARED, RECENT))
    ]
    hosts = sorted({row.host for row in rows} | nodes.keys())
    return show_page(
        request,
        "overview.html",
        visitor,
        "overview",
        promises=promises,
        unknown=[row.promise for row in promises if row.standing is Standing.UNKNOWN],
        broken=[row.promise for row in promises if row.standing is Standing.BROKEN],
        hosts=[(host, nodes.get(host), [row for row in rows if row.host == host]) for host in hosts],
        resources=rows,
        open=[*listed[0].items, *listed[1].items],
        recent=listed[2].items,
        is_admin=caller.role is Role.ADMIN,
    )


@router.get("/faults")
async def fault_list(
    request: Request, visitor: CurrentVisitor, parts: FaultParts, state: FaultState | None = None
) -> Response:
    """The newest faults first."""
    rows = (await faults.list_faults(visitor.caller, parts, state, 100)).items
    return show_page(
        request, "faults.html", visitor, "faults", faults=rows, state=state, states=list(FaultState)
    )


@router.get("/faults/{fault}")
async def one_fault(
    request: Request,
    fault: Annotated[str, Path(max_length=200)],
    visitor: CurrentVisitor,
    console: Parts,
    parts: FaultParts,
) -> Response:
    """One fault: its chain as a picture and in sentences."""
    row = await faults.show_fault(fault, visitor.caller, parts)
    chain = await faults.chain_of(fault, visitor.caller, parts)
    now_ms = (console.clock.wall_ns() - min(each.at_ns for each in chain)) / 1e6
    return show_page(
        request,
        "fault.html",
        visitor,
        "faults",
        fault=row,
        chain=explained(chain),
        picture=picture(lanes(chain), now_ms),
    )


@router.get("/journal")
async def journal(  # noqa: PLR0913 - a search has this many fields
    request: Request,
    visitor: CurrentVisitor,
    parts: FaultParts,
    topology: CurrentTopology,
    kind: Word = "",
    subject: Word = "",
    text: Word = "",
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """Newest first; the stream adds rows on top of the first page."""
    search = Search(kind, subject.strip(), text.strip())
    pages = JournalPages(parts.journal, parts.readers)
    found = await pages.page(visitor.caller, topology(), search, before, JOURNAL_ROWS)
    since = await parts.journal.head() if not found.events else found.events[0].seq
    asked = {"kind": search.kind, "subject": search.subject, "text": search.text}
    wanted = {name: value for name, value in asked.items() if value}
    return show_page(
        request,
        "journal.html",
        visitor,
        "journal",
        events="/console/events?" + urlencode({**wanted, "journal": "1", "since": since}),
        rows=[journal_row(each) for each in found.events],
        older=None if found.older is None else "?" + urlencode({**wanted, "before": found.older}),
        newest="?" + urlencode(wanted),
        is_first=before is None,
        search=search,
        kinds=kinds(),
    )


def journal_row(event: Envelope) -> dict[str, object]:
    """An event as a line of the page."""
    noun, _, name = event.subject.partition("/")
    fault = name if noun == "fault" else str(event.payload.get("fault", ""))
    return {
        "seq": event.seq,
        "at": iso(event.at_ns),
        "kind": event.kind,
        "subject": event.subject,
        "by": event.origin,
        "what": sentence(event.event, event.kind),
        "fault": fault,
    }


@router.get("/subscriptions")
async def show_subscriptions(request: Request, visitor: CurrentVisitor, parts: NoticeParts) -> Response:
    """Who is told, how far that got, and a button to try it out."""
    caller = visitor.caller
    rows = (await subscriptions.list_subscriptions(caller, parts)).items
    told = (await notices.list_notices(caller, parts, None, None, 500)).items
    latest = {each.subscription: each for each in reversed(told)}
    return show_page(
        request,
        "subscriptions.html",
        visitor,
        "subscriptions",
        rows=[(row, latest.get(row.name), caller.may_write(row.project)) for row in rows],
    )


@router.post("/subscriptions/{name}/test")
async def test_subscription(
    name: Annotated[str, Path(pattern=NAME_PATTERN)],
    visitor: WritingVisitor,
    parts: NoticeParts,
) -> Response:
    """Send a signed notice that says that nothing is wrong to each endpoint, and show the answers."""
    row = await subscriptions.show_subscription(name, visitor.caller, parts)
    if not visitor.caller.may_write(row.project):
        raise NotAllowed(f"{visitor.caller.role.value}s do not send test notices of {row.project}")
    tried = await subscriptions.test_subscription(name, visitor.caller, parts)
    return HTMLResponse(page("trial.html", trials=tried.items))


@router.get("/figures")
async def last_hour(visitor: CurrentVisitor, console: Parts) -> Response:
    """The chart's numbers."""
    now_ns = console.clock.wall_ns()
    points = await console.readers.read(partial(figures.last_hour, caller=visitor.caller, now_ns=now_ns))
    shown = figures.columns(points)
    return JSONResponse({**shown, "from": now_ns / 1e9 - figures.WINDOW_S, "to": now_ns / 1e9})


@router.get("/events")
async def events(  # noqa: PLR0913 - a search has this many fields
    visitor: CurrentVisitor,
    console: Parts,
    parts: FaultParts,
    topology: CurrentTopology,
    journal: bool = False,
    since: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    kind: Word = "",
    subject: Word = "",
    text: Word = "",
) -> Response:
    """The stream that keeps an open page current."""
    head = await parts.journal.head()
    stream = Stream(
        tail=console.tail,
        pages=JournalPages(parts.journal, parts.readers),
        sessions=console.sessions,
        topology=topology,
        secret=visitor.secret,
        since=head if since is None else Seq(min(head, since)),
        search=Search(kind, subject, text) if journal else None,
        rows=lambda found: page("rows.html", rows=[journal_row(each) for each in found]),
    )
    console.tail.enter()
    return StreamingResponse(
        stream.messages(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )

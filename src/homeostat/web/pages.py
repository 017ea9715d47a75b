"""The pages of the frame: the way in by a one-time link, the way out, and the static files.

Pages of components are in the components (`homeostat.faults.pages` and others); the front page is
`homeostat.server.dashboard`. A page is its own part: its element `#live` is fetched again, from the same
address, when the stream says that something changed.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from homeostat.web.page_route import COOKIE, CurrentConsole, PageRoute, WritingVisitor, assets, page
from homeostat.web.sessions import SESSION_S

HOME = "/console/"

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)
front = APIRouter(route_class=PageRoute, include_in_schema=False)


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
    request: Request, console: CurrentConsole, key: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Use up a one-time link.

    The answer is a page and no redirect: a browser that came from elsewhere would not send a SameSite=Strict
    cookie along with a redirect, but it does when this page of ours leads on.
    """
    caller = console.links.take(key)
    if caller is None:
        raise HTTPException(
            401,
            "this link was already used or is older than a minute; `homeostat console` makes another",
        )
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
async def leave(visitor: WritingVisitor, console: CurrentConsole) -> Response:
    """Log out."""
    await console.sessions.close(visitor)
    response = HTMLResponse(page("problem.html", status=200, message="You are logged out."))
    response.delete_cookie(COOKIE, path="/console", httponly=True, samesite="strict")
    return response

"""The HTTP API of the dashboard: makes a one-time link for a caller who has a token.

POST /api/v1/console-links.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from homeostat.kernel.clock import iso
from homeostat.kernel.http import ERRORS, CurrentCaller
from homeostat.web.page_route import Console, console_of

router = APIRouter(prefix="/api/v1/console-links", tags=["console"], responses=ERRORS)


class LinkView(BaseModel):
    """Open this path of the server in a browser, once, before `expires_at`."""

    path: str
    expires_at: str


@router.post("", status_code=201)
async def make_link(caller: CurrentCaller, console: Annotated[Console, Depends(console_of)]) -> LinkView:
    """A one-time link. The browser gets the caller's role and project, no more."""
    secret, expires_ns = console.links.make(caller)
    return LinkView(path=f"/console/enter?key={secret}", expires_at=iso(expires_ns))

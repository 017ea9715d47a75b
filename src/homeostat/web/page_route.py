"""The layout and the route class of pages: templates, static files, visitor, security headers, errors.

Errors are pages here, and JSON in the API. Every answer forbids scripts and styles that are not our files.
The `Console` is `app.state.console`, made by the composition root: all that the pages of components stand on.

All text is escaped; a missing name is an error. A file, ours or vendored, is read once and served from
memory. Its name in a page carries its checksum, so a browser keeps it for a year and never shows an old
one. No path comes from outside: what is not in the list does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import HTMLResponse, Response

from homeostat import __version__
from homeostat.contracts.component import NavigationEntry, PanelSource
from homeostat.contracts.health import HealthSource
from homeostat.contracts.journal_view import JournalView
from homeostat.contracts.nouns import SetPoint
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, NotFound, RetryLater
from homeostat.kernel.http import note_authenticated
from homeostat.web.sessions import Links, Sessions, Visitor
from homeostat.web.stream import JournalTail

STATIC = Path(__file__).with_name("static")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `version` is the beginning of its SHA-256."""

    body: bytes
    media_type: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """Every file that may be asked for, by its path below `static`."""
    return {
        path.relative_to(STATIC).as_posix(): Asset(
            body, f"{_TYPES[path.suffix]}; charset=utf-8", hashlib.sha256(body).hexdigest()[:12]
        )
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in _TYPES and (body := path.read_bytes())
    }


def asset_url(name: str) -> str:
    return f"/console/static/{assets()[name].version}/{name}"


_SIGNS = {
    "good": "kept,up,present,cleared,recovered,delivered,ok,PASS,safe,ACTIVE",
    "bad": "broken,down,failed,error,open,lost,given_up,critical,FAIL,ERROR,lapsed,missing",
    "unsure": "unknown,starting,clearing,pending,stopped,suspected,back,held,silenced,active,planned,running,"
    "INCONCLUSIVE,ABORTED,changed,at_risk",
}
_SIGN_OF = {word: sign for sign, words in _SIGNS.items() for word in words.split(",")}
_SIGN_OF["agent lost"] = "bad"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("homeostat.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"asset": asset_url, "version": __version__}
    made.filters |= {"clock": clock, "day": day, "duration": duration, "sign": sign, "quantity": quantity}
    made.filters |= {"named": named}
    return made


def add_filters(**filters: Callable[..., object]) -> None:
    """Make the filters of a component's templates known; called where its pages are defined."""
    _environment().filters |= filters


def page(template: str, **values: object) -> str:
    """A whole page, or a part of one."""
    return _environment().get_template(template).render(values)


def named(subject: str) -> str:
    """The name in a subject: `n1` of `host/n1`. What has no noun (`fleet`) is its own name."""
    return subject.partition("/")[2] or subject


def clock(at: str) -> str:
    """The API's time as `05:26:55.123`, in UTC."""
    return datetime.fromisoformat(at).strftime("%H:%M:%S.%f")[:-3]


def day(at: str) -> str:
    """The API's time as `2026-11-21 05:26:55`, in UTC."""
    return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M:%S")


def duration(ms: float | None) -> str:
    """Milliseconds in the unit that a person would choose; empty for None."""
    if ms is None:
        return ""
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1_000:.2f} s"
    return f"{ms / 60_000:.0f} min"


def quantity(value: float, unit: str) -> str:
    """A duration as such; of anything that is counted the number, with three digits that count."""
    if unit in ("s", "ms"):
        whole = value == int(value) and unit == "s" and value < 120
        return f"{value:.0f} s" if whole else duration(value * (1_000 if unit == "s" else 1))
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def sign(word: str) -> str:
    """`good`, `bad`, `unsure` or `plain`: which shape and colour a state has on a page."""
    return _SIGN_OF.get(word, "plain")


@dataclass(frozen=True, slots=True)
class Console:
    """`set_points` are the components' set points, `panels` their parts of the front page.

    Every page says what is wrong by `health`. What else pages show comes from their own APIs. `view` is how
    events are shown, `navigation` where the pages are.
    """

    links: Links
    sessions: Sessions
    set_points: Callable[[Caller], Awaitable[Sequence[SetPoint]]]
    health: HealthSource
    readers: Readers
    tail: JournalTail
    clock: Clock
    view: JournalView
    navigation: Sequence[NavigationEntry]
    panels: Sequence[PanelSource] = ()


def console_of(request: Request) -> Console:
    """The parts, as a route finds them."""
    console: Console = request.app.state.console
    return console


COOKIE = "homeostat_console"
CSRF_HEADER = "X-CSRF-Token"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PageRoute(APIRoute):
    """A route whose answers carry our headers, and whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's, with our edge around it."""
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            return await _guarded(request, answer)

        return guarded


async def _guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    try:
        response = await answer(request)
    except (HomeostatError, AnyHTTPException, RequestValidationError) as error:
        response = _problem(request, error)
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _problem(request: Request, error: Exception) -> Response:
    status, message = _meaning(error)
    if "HX-Request" in request.headers:
        response = Response(message, status, media_type="text/plain")
        if status == 401:
            response.headers["HX-Refresh"] = "true"
        return response
    return HTMLResponse(page("problem.html", status=status, message=message), status)


def _meaning(error: Exception) -> tuple[int, str]:
    match error:
        case BadInput():
            return 422, str(error)
        case NotFound():
            return 404, str(error)
        case NotAllowed():
            return 403, str(error)
        case RetryLater():
            return 503, str(error)
        case AnyHTTPException():
            return error.status_code, str(error.detail)
        case RequestValidationError():
            return 422, "a field of this address is not acceptable"
        case _:
            return 500, "this server has an error; its log says more"


async def current_visitor(request: Request) -> Visitor:
    visitor = await console_of(request).sessions.find(request.cookies.get(COOKIE))
    if visitor is None:
        raise HTTPException(401, "you are not logged in, or your session is over")
    note_authenticated(request)
    return visitor


async def writing_visitor(request: Request, visitor: Annotated[Visitor, Depends(current_visitor)]) -> Visitor:
    """The same for a write: it must come from one of our own pages, by header or by form field."""
    given = request.headers.get(CSRF_HEADER)
    if given is None:
        fields = parse_qs((await request.body()).decode(errors="replace"), max_num_fields=20)
        given = fields.get("csrf", [""])[0]
    visitor.check(given)
    return visitor


CurrentVisitor = Annotated[Visitor, Depends(current_visitor)]
WritingVisitor = Annotated[Visitor, Depends(writing_visitor)]


CurrentConsole = Annotated[Console, Depends(console_of)]


def show_page(request: Request, template: str, visitor: Visitor, here: str, **values: object) -> HTMLResponse:
    """A page of somebody who is logged in. `here` is its entry in the navigation."""
    query = f"?{request.url.query}" if request.url.query else ""
    own = request.url.path + query
    shown: dict[str, object] = {"visitor": visitor, "here": here, "own": own, "events": "/console/events"}
    console = console_of(request)
    shown |= {"navigation": console.navigation, "health": console.health()}
    return HTMLResponse(page(template, **{**shown, **values}))

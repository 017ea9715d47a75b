"""The HTTP edge of the pages: who sits at the browser, what every answer carries, how an error looks.

Errors are pages here, and JSON in the API. Every answer forbids scripts and styles that are not our files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import HTMLResponse, Response

from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, NotFound, RetryLater
from homeostat.web.console import console_of
from homeostat.web.rendering import page
from homeostat.web.sessions import Visitor

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
    """Who sits at the browser; 401 without a session."""
    visitor = await console_of(request).sessions.find(request.cookies.get(COOKIE))
    if visitor is None:
        raise HTTPException(401, "you are not logged in, or your session is over")
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

"""The HTTP edge of all components: who calls, how errors look, how long a body may be.

It knows no route. An error is always `{"error": {"type", "message", "field", "value", "accepted"}}`; a client
never sees a stack trace, and what it sent under a name that sounds secret is not sent back. A router takes
its parts from `app.state.<component>` and the caller from `CurrentCaller`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import OrderedDict
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar, get_origin

import orjson
import structlog
from fastapi import Depends, FastAPI, HTTPException, Request, Security, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from homeostat.kernel import errors
from homeostat.kernel.access import Caller, authenticate, observer
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers

V = TypeVar("V", bound=BaseModel)

BODY_BYTES_MAX = 1024 * 1024
CALLERS_KEPT_S = 2.0
"""A revoked token may still work for so long: what each request would otherwise cost is one read."""
CALLERS_KEPT_WITHOUT_STORE_S = 600.0
"""A token read before the store stopped answering works for so long: who looks then is to be told what
is wrong. Nobody can revoke a token meanwhile, since that is written there."""
_CALLERS_KEPT_MAX = 1024
_WITHOUT_STORE_NS = round(CALLERS_KEPT_WITHOUT_STORE_S * 1e9)
_RETRY_AFTER_S = "1"
_SECRET_WORDS = ("secret", "password", "token", "authorization")
_SHOWN_LENGTH = 80
_SEVERAL = (tuple, list)
"""The types of a query's fields that may be given several times."""
_log = structlog.get_logger("http")


def _whole(text: str) -> str:
    if "\x00" in text or text != _clean(text):
        raise PydanticCustomError("text", "text without NUL and without halves of characters")
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""Free text in a body. JSON may carry a NUL or half a character, which no database and no answer can hold."""


class StrictBody(BaseModel):
    """A body that is sent to us; a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """What went wrong. `field`, `value` and `accepted` are there when one field of the input is to blame."""

    type: str
    message: str
    field: str | None = None
    value: str | int | float | bool | None = None
    accepted: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The body cannot be read",
        401: "No token, or one that is not known",
        403: "Your role or project does not permit this",
        404: "No such thing, or not yours",
        409: "Something with that name is already there",
        413: "The body is too long",
        422: "One field is not acceptable",
        503: "Later: the store does not answer or has no room",
    }.items()
}
"""For `APIRouter(responses=ERRORS)`: what any route may answer."""


class Callers:
    """Finds who holds a token, and remembers it for seconds. Keeps hashes, never tokens."""

    def __init__(self, readers: Readers, clock: Clock, kept_s: float = CALLERS_KEPT_S) -> None:
        self._readers, self._clock, self._kept_ns = readers, clock, round(kept_s * 1e9)
        self._kept: OrderedDict[bytes, tuple[Caller, int]] = OrderedDict()

    async def find(self, token: str) -> Caller | None:
        """The caller, None for a token that is not known. StoreUnavailable."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        kept = self._kept.get(digest)
        if kept is not None and self._clock.mono_ns() < kept[1]:
            return kept[0]
        try:
            caller = await self._readers.read(partial(authenticate, token=token))
        except errors.RetryLater:
            if kept is not None and self._clock.mono_ns() < kept[1] + _WITHOUT_STORE_NS:
                return kept[0]
            raise
        self._kept.pop(digest, None)
        if caller is not None:
            self._kept[digest] = (caller, self._clock.mono_ns() + self._kept_ns)
            if len(self._kept) > _CALLERS_KEPT_MAX:
                self._kept.popitem(last=False)
        return caller

    def forget(self) -> None:
        """To be called when tokens have changed: the next request of each caller is read again."""
        self._kept.clear()


_bearer = HTTPBearer(auto_error=False, description="A token of this installation")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
"""The token of a request, for a route that itself decides whether it asks who calls."""


LISTENER_WITHOUT_AUTHENTICATION = "homeostat.listener"
"""In the scope of a request that came in on such a listener: its name."""

CONNECTION = "homeostat.connection"
"""In the scope of a request: its connection, which is no stranger's once `note_authenticated` was called."""


def note_authenticated(request: Request) -> None:
    """Somebody who is known made this request: its connection is not limited as a stranger's."""
    connection = request.scope.get(CONNECTION)
    if connection is not None:
        connection.authenticated()


def refusal_answer(status: int, message: str) -> bytes:
    """A whole answer for a connection whose request is not looked at; it is closed afterwards."""
    kind = {408: "too_slow", 429: "too_many"}.get(status, "retry_later")
    answer = _answer(status, kind, message)
    answer.headers.update({"Connection": "close", "Retry-After": _RETRY_AFTER_S})
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{head}\r\n".encode() + bytes(answer.body)


async def any_caller(request: Request, credentials: Credentials) -> Caller:
    """Who calls, an observer on a listener without authentication; 401 without a token that we know."""
    listener = request.scope.get(LISTENER_WITHOUT_AUTHENTICATION)
    if listener is not None:
        return observer(listener)
    callers: Callers = request.app.state.callers
    caller = None if credentials is None else await callers.find(credentials.credentials)
    if caller is None:
        message = "no token; send Authorization: Bearer <token>" if credentials is None else "token not known"
        raise HTTPException(401, message, {"WWW-Authenticate": 'Bearer realm="homeostat"'})
    note_authenticated(request)
    return caller


async def current_caller(request: Request, credentials: Credentials) -> Caller:
    """Who calls; 401 without a token that we know, 403 for who may only observe."""
    caller = await any_caller(request, credentials)
    if caller.observes_only:
        raise errors.NotAllowed(
            f"{caller.name}: it asks for no token, so it takes observations and nothing else"
        )
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]
"""The type of a route's parameter that asks who calls."""
AnyCaller = Annotated[Caller, Depends(any_caller)]
"""The same for a route that takes observations, which may come from anybody who can reach the listener."""


def state_part(name: str) -> Any:
    """A dependency of routes: the part of their component that is `app.state.<name>`."""

    def find(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(find)


def view_from(kind: type[V], record: object, **more: object) -> V:
    """An answer's body with the fields of a record that have the same names, and with `more`."""
    same = {name: getattr(record, name) for name in kind.model_fields if name not in more}
    return kind(**same, **more)


async def _known_query(request: Request) -> None:
    """Refuse a query that the route would ignore: who mistypes a filter must not get everything."""
    route = request.scope.get("route")
    if isinstance(route, APIRoute):
        fields = get_flat_params(route.dependant)
        asked = {
            field.alias: field.field_info for field in fields if isinstance(field.field_info, params.Query)
        }
        given = request.query_params
        for name, value in given.multi_items():
            if name not in asked:
                raise errors.BadInput(
                    name, value, f"known here: {', '.join(sorted(asked)) or 'no query at all'}"
                )
            if len(given.getlist(name)) > 1 and get_origin(asked[name].annotation) not in _SEVERAL:
                raise errors.BadInput(name, value, "one value; it is given several times")


def make_app(
    callers: Callers, *, title: str = "Homeostat", version: str = "", body_bytes_max: int = BODY_BYTES_MAX
) -> FastAPI:
    """An application without routes. OpenAPI at /api/v1/openapi.json, no pages with foreign scripts."""
    app = FastAPI(
        title=title,
        version=version or "0",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_known_query)],
    )
    app.state.callers = callers
    app.add_middleware(BodyLimit, bytes_max=body_bytes_max)
    app.add_exception_handler(errors.HomeostatError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(AnyHTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unexpected)
    return app


class BodyLimit:
    """Refuses a body above `bytes_max` with 413, whether its length is declared or it comes in chunks."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app, self._bytes_max = app, bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = _answer(413, "too_large", f"the body is longer than {self._bytes_max} bytes; send less")
        refusal.headers["Connection"] = "close"
        if _declared(scope) > self._bytes_max:
            await refusal(scope, receive, send)
            return
        read, too_long, answered = 0, False, False

        async def counted() -> Message:
            nonlocal read, too_long
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._bytes_max:
                too_long = True
                raise _TooLong
            return message

        async def answer(message: Message) -> None:
            nonlocal answered
            # The framework makes an error of its own of ours; the client gets the right one instead.
            if answered or not too_long:
                answered = True
                await send(message)

        with contextlib.suppress(_TooLong):
            await self._app(scope, counted, answer)
        if too_long and not answered:
            await refusal(scope, receive, send)


class _TooLong(Exception):
    """More than the limit has arrived."""


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _on_error(_request: Request, error: Exception) -> Response:
    match error:
        case errors.Conflict():
            return _blame(409, "conflict", error)
        case errors.BadInput():
            return _blame(422, "bad_input", error)
        case errors.NotFound():
            return _answer(404, "not_found", str(error))
        case errors.NotAllowed():
            return _answer(403, "not_allowed", str(error))
        case errors.AlreadyDone():
            return _answer(409, "already_done", str(error))
        case errors.RetryLater() | errors.Deposed():
            answer = _answer(503, "retry_later", str(error))
            answer.headers["Retry-After"] = _RETRY_AFTER_S
            return answer
        case _:
            _log.error("internal error in an API request", reason=repr(error))
            return _answer(500, "internal", "this server has an error; its log says more")


async def _on_bad_request(_request: Request, error: Exception) -> Response:
    found = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    path = [str(each) for each in found.get("loc", ())]
    field = ".".join(path[1:] or path) if found.get("type") != "json_invalid" else "body"
    accepted = {
        "extra_forbidden": "no field of this name",
        "missing": "a value; the field is required",
        "json_invalid": "a body that is JSON",
    }.get(found.get("type", ""), str(found.get("msg", "another value")))
    absent = found.get("type") in ("missing", "json_invalid")
    return _blame(422, "bad_input", errors.BadInput(field, None if absent else found.get("input"), accepted))


async def _on_http(_request: Request, error: Exception) -> Response:
    status, message, headers = 500, "", None
    if isinstance(error, AnyHTTPException):
        status, message, headers = error.status_code, str(error.detail), error.headers
    kinds = {400: "bad_request", 401: "not_authenticated", 403: "not_allowed", 404: "not_found"}
    kinds |= {405: "method_not_allowed", 413: "too_large", 415: "bad_request", 422: "bad_input"}
    answer = _answer(status, kinds.get(status, "http"), message)
    answer.headers.update(headers or {})
    return answer


async def _on_unexpected(_request: Request, _error: Exception) -> Response:
    # The framework raises it again after this answer, so that the server's log has it.
    return _answer(500, "internal", "this server has an error; its log says more")


def _blame(status: int, kind: str, error: errors.BadInput) -> JSONResponse:
    secret = any(word in error.field.lower() for word in _SECRET_WORDS)
    value = "(not shown)" if secret and error.value is not None else error.value
    field, accepted = _clean(error.field), _clean(error.accepted)
    wrong = "nothing is given" if value is None else f"{_shown(value)!r} is not accepted"
    return _answer(
        status,
        kind,
        f"{field}: {wrong}; {accepted}",
        {"field": field, "value": _shown(value), "accepted": accepted},
    )


def _answer(status: int, kind: str, message: str, more: dict[str, Any] | None = None) -> JSONResponse:
    detail = {"type": kind, "message": _clean(message), "field": None, "value": None, "accepted": None}
    return JSONResponse({"error": detail | (more or {})}, status)


def _shown(value: object) -> str | int | float | bool | None:
    """Something JSON can hold, and short."""
    match value:
        case None | bool():
            return value
        case int() if abs(value) < 2**53:
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            text = _clean(value)
        case _:
            try:
                text = _clean(orjson.dumps(value).decode())
            except TypeError:
                text = _clean(type(value).__name__)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


def _clean(text: str) -> str:
    """Text that can be encoded: JSON may bring half a surrogate pair."""
    return text.encode(errors="replace").decode()

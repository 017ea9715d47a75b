"""Blazar's API v1 on a listener of its own: the HTTP side, for the clients that people have.

Who calls is said by a token of ours, as `X-Auth-Token` (--os-auth-type admin_token) or as the password of
HTTP Basic with the token's name as the user (http_basic). Invariants: a query, a version or a body that is
not understood is refused, never ignored; no error leaves in a form that python-blazarclient cannot read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from homeostat.contracts.component import ServedListener, ServerParts
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import Clock
from homeostat.kernel.errors import BadInput, HomeostatError, NotAllowed, NotFound, RetryLater
from homeostat.kernel.http import BODY_BYTES_MAX, BodyLimit, Callers, note_authenticated
from homeostat.kernel.listeners import HttpListener
from homeostat.leases.blazar_operations import OPERATIONS, Answer, BlazarApi, Call, Operation
from homeostat.leases.blazar_refusals import BlazarError, bad_input, malformed
from homeostat.leases.keeper import LeaseKeeper
from homeostat.leases.model import ResourceType
from homeostat.leases.settings import LeasesSettings

VERSION = "1.0"
_VERSION_HEADER = "OpenStack-API-Version"
_SERVICE = "reservation"
_log = structlog.get_logger("blazar")


def blazar_listeners(parts: ServerParts, keeper: LeaseKeeper) -> tuple[ServedListener, ...]:
    """The listener, when it is enabled."""
    settings: LeasesSettings = parts.section("leases")
    wanted = settings.blazar
    if not wanted.enabled:
        return ()
    api = BlazarApi(keeper, parts.find(Clock), tuple(map(ResourceType, settings.plugins)))
    networks = wanted.allowed_networks
    listener = HttpListener("leases.blazar", wanted.host, wanted.port, allowed_networks=networks)
    return (ServedListener(listener, blazar_app(api, parts.find(Callers))),)


def blazar_app(api: BlazarApi, callers: Callers, body_bytes_max: int = BODY_BYTES_MAX) -> Starlette:
    """The application of the listener."""
    routes = [Route(path, _versions, methods=["GET"]) for path in ("/", "/versions")]
    routes += [
        Route(path, partial(_serve, api, callers, each), methods=[each.method], name=f"{each.method} {path}")
        for path, each in OPERATIONS
    ]
    routes += [
        Route(path, _no_floating_ips, methods=["GET", "POST", "PUT", "DELETE"])
        for path in ("/v1/floatingips", "/v1/floatingips/{id}")
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(BodyLimit, bytes_max=body_bytes_max)],
        exception_handlers={
            BlazarError: _on_error,
            HomeostatError: _on_error,
            HTTPException: _on_error,
            Exception: _on_unexpected,
        },
    )


async def _serve(api: BlazarApi, callers: Callers, operation: Operation, request: Request) -> Response:
    caller = await _caller(callers, request)
    _check_version(request)
    query = _query(request, operation.query)
    body = await _body(request) if operation.method in ("POST", "PUT", "PATCH") else {}
    found = await operation.run(api, Call(caller, query, body, request.path_params))
    return _answer(operation.status, {} if found is None else found)


async def _caller(callers: Callers, request: Request) -> Caller:
    name, token = _credentials(request)
    caller = None if token is None else await callers.find(token)
    if caller is None or caller.observes_only or name not in (None, caller.name):
        wrong = "no token" if token is None else "this token is not known"
        if caller is not None and name not in (None, caller.name):
            wrong = "this token has another name than the user that is given"
        raise BlazarError(
            401,
            f"The request you have made requires authentication: {wrong}; give a token of this server with"
            " --os-auth-type admin_token --os-token TOKEN, or with --os-auth-type http_basic"
            " --os-username NAME --os-password TOKEN",
            {"WWW-Authenticate": 'Basic realm="homeostat"'},
        )
    note_authenticated(request)
    return caller


def _credentials(request: Request) -> tuple[str | None, str | None]:
    """Name and token, None for what is not given."""
    token = request.headers.get("x-auth-token")
    if token is not None:
        return None, token
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return None, given.strip()
    if scheme.lower() != "basic":
        return None, None
    try:
        name, colon, token = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None, None
    return (name, token) if colon else (None, None)


def _check_version(request: Request) -> None:
    """`OpenStack-API-Version: reservation 1.0`, or none; Blazar has no other."""
    for each in request.headers.get(_VERSION_HEADER, "").split(","):
        service, _, version = each.strip().partition(" ")
        if service == _SERVICE and version.strip() not in (VERSION, "latest"):
            raise BlazarError(
                406,
                f"Version {version.strip()} is not supported by the API."
                f" Minimum is {VERSION} and maximum is {VERSION}.",
            )


def _query(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in known:
            names = ", ".join(known) if known else "none at all"
            raise BlazarError(400, f"Unknown query parameter {name!r}; known here are: {names}")
    if len(dict(given)) < len(given):
        raise BlazarError(400, f"Each of {', '.join(sorted(dict(given)))} may be given once")
    return dict(given)


async def _body(request: Request) -> Mapping[str, Any]:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind != "application/json":
        raise BlazarError(400, f"Content type '{kind}' isn't supported; send application/json")
    raw = await request.body()
    if not raw:
        return {}
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BlazarError(400, f"Malformed body: no JSON ({error})") from None
    if not isinstance(found, dict):
        raise malformed("body", "a JSON object")
    return found


def _answer(status: int, body: Answer, headers: Mapping[str, str] | None = None) -> Response:
    content = b"" if status == 204 else orjson.dumps(body)
    version = {_VERSION_HEADER: f"{_SERVICE} {VERSION}", "Vary": _VERSION_HEADER}
    kind = None if status == 204 else "application/json"
    return Response(content, status, {**version, **(headers or {})}, kind)


async def _versions(request: Request) -> Response:
    """What Blazar answers anybody; it says nothing of this installation."""
    version = {
        "id": f"v{VERSION}",
        "status": "CURRENT",
        "links": [{"href": f"{request.base_url}v1", "rel": "self"}],
        "min_version": VERSION,
        "max_version": VERSION,
    }
    return _answer(300, {"versions": [version]})


async def _no_floating_ips(_request: Request) -> Response:
    error = BlazarError(404, "The virtual:floatingip resource type is not supported: no such plug-in here")
    return _answer(error.status, error.body)


async def _on_error(_request: Request, error: Exception) -> Response:
    match error:
        case BlazarError():
            answer = error
        case BadInput():
            answer = bad_input(error)
        case NotFound():
            answer = BlazarError(404, str(error))
        case NotAllowed():
            answer = BlazarError(403, str(error))
        case RetryLater():
            answer = BlazarError(503, str(error), {"Retry-After": "1"})
        case HTTPException():
            answer = BlazarError(error.status_code, str(error.detail), error.headers)
        case _:
            _log.error("internal error in a request of Blazar's API", reason=repr(error))
            answer = BlazarError(500, "Internal Server Error; the log of this server says more")
    return _answer(answer.status, answer.body, answer.headers)


async def _on_unexpected(request: Request, error: Exception) -> Response:
    # The framework raises it again after this answer, so that the server's log has it.
    return await _on_error(request, error)

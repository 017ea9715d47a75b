"""The HTTP API, assembled: every room's router, /healthz, and the sum of all set points."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import BaseModel

from homeostat import __version__
from homeostat.contracts.nouns import SetPoint, Standing
from homeostat.drills import api as drills
from homeostat.drills import hosts_api as drilled_hosts
from homeostat.faults import api as faults
from homeostat.faults import what_if_api as what_if
from homeostat.fleet import api as fleet
from homeostat.fleet import hosts_api as hosts
from homeostat.kernel.errors import AlreadyRunning
from homeostat.kernel.http import ERRORS, Callers, CurrentCaller, make_app
from homeostat.metrics import SetPoints
from homeostat.metrics import router as metrics_router
from homeostat.notices import api as notices
from homeostat.notices import silences_api as silences
from homeostat.notices import subscriptions_api as subscriptions
from homeostat.resources import api as resources
from homeostat.tokens_api import router as tokens_router
from homeostat.web import api as console_links
from homeostat.web import drill_pages, pages, silence_pages

BACKLOG = 2048
"""Connections that wait to be accepted; uvicorn's own number."""


@dataclass(frozen=True, slots=True)
class Overview:
    """`promises` are the rooms' set points in the order of `homeostat status`.

    `health` is empty while all is well, else what is wrong, in one line.
    """

    promises: tuple[SetPoints, ...]
    health: Callable[[], str]


class Health(BaseModel):
    """Whether this server can write and hear."""

    status: Literal["ok", "failing"]
    reason: str


class Promise(BaseModel):
    """One set point. `value` is null when nothing was measured yet."""

    room: str
    promise: str
    limit: float
    unit: str
    value: float | None
    standing: Standing
    detail: str


class Status(BaseModel):
    """Every promise; `standing` is broken when one of them is."""

    version: str
    standing: Standing
    items: list[Promise]


def assemble(
    overview: Overview, callers: Callers, body_bytes_max: int, state: Mapping[str, object]
) -> FastAPI:
    """The application. `state` is what the rooms' routers find in `app.state`."""
    app = make_app(callers, version=__version__, body_bytes_max=body_bytes_max)
    app.state.overview = overview
    for name, parts in state.items():
        setattr(app.state, name, parts)
    rooms = (
        fleet,
        hosts,
        resources,
        faults,
        what_if,
        subscriptions,
        notices,
        silences,
        drills,
        drilled_hosts,
    )
    console = (console_links.router, pages.front, pages.router, silence_pages.router, drill_pages.router)
    for router in (own, metrics_router, *(room.router for room in rooms), tokens_router, *console):
        app.include_router(router)
    return app


def _overview(request: Request) -> Overview:
    overview: Overview = request.app.state.overview
    return overview


Sum = Annotated[Overview, Depends(_overview)]
own = APIRouter(tags=["status"], responses=ERRORS)


@own.get("/healthz", responses={503: {"model": Health, "description": "It cannot"}})
async def healthz(response: Response, overview: Sum) -> Health:
    """200 while this server can write and hear; 503 with the reason otherwise. No token needed."""
    wrong = overview.health()
    if wrong:
        response.status_code = 503
    return Health(status="failing" if wrong else "ok", reason=wrong)


@own.get("/api/v1/status")
async def status(caller: CurrentCaller, overview: Sum) -> Status:
    """Every promise, its value now, and whether it is kept; measured on what the caller may read."""
    rows = [row for promise in overview.promises for row in await promise(caller)]
    broken = any(row.standing is Standing.BROKEN for row in rows)
    return Status(
        version=__version__,
        standing=Standing.BROKEN if broken else Standing.KEPT,
        items=[_promise(row) for row in rows],
    )


def _promise(row: SetPoint) -> Promise:
    return Promise(
        room=row.room,
        promise=row.promise,
        limit=row.limit,
        unit=row.unit,
        value=row.value,
        standing=row.standing,
        detail=row.detail,
    )


def bind(host: str, port: int) -> socket.socket:
    """The listening socket; AlreadyRunning when it cannot be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # now: two that only bind may both believe that the port is theirs
    except OSError as error:
        listener.close()
        raise AlreadyRunning(
            f"api.port: {host}:{port} cannot be had ({error.strerror}); stop what has it, or set another"
        ) from error
    return listener


class _Listener(uvicorn.Server):
    """uvicorn inside our own loop: signals are the composition root's."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


async def listen(app: FastAPI, listener: socket.socket) -> None:
    """Serve until cancelled."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    await _Listener(config).serve(sockets=[listener.dup()])

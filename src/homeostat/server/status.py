"""The health and the set points of a server: /healthz, GET /api/v1/status, and the warning on every answer.

The set points of all views come from here, as far as they are known now. A source that cannot be read is a
row of its own, never a missing one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from homeostat import __version__
from homeostat.contracts.health import HealthSource, known_set_points, overall_state
from homeostat.contracts.nouns import SetPoint, SetPointState
from homeostat.kernel.access import Caller
from homeostat.kernel.client import WARNING_HEADER
from homeostat.kernel.errors import RetryLater
from homeostat.kernel.http import ERRORS, CurrentCaller

SetPoints = Callable[[Caller], Awaitable[Sequence[SetPoint]]]
"""A component's set points, as this caller may see them."""


@dataclass(frozen=True, slots=True)
class StatusSources:
    """`promises` are the components' set points in the order of `homeostat status`."""

    promises: tuple[SetPoints, ...]
    health: HealthSource

    async def set_points(self, caller: Caller) -> list[SetPoint]:
        """All rows that the caller may read, as far as they are known now."""
        rows: list[SetPoint] = []
        for promise in self.promises:
            try:
                rows += await promise(caller)
            except RetryLater as error:
                rows.append(_unread(str(error)))
        return known_set_points(rows, self.health())


def _unread(reason: str) -> SetPoint:
    return SetPoint(
        "server", "set points that cannot be read", 0, "sources", None, SetPointState.UNKNOWN, reason
    )


class Health(BaseModel):
    """Whether this server can write and hear. `impairments` are the names of what is wrong."""

    status: Literal["ok", "failing"]
    reason: str
    impairments: list[str] = []


class SetPointView(BaseModel):
    """One set point. `value` is null when nothing was measured, or when it is not known now.

    `project` is whose row it is where each project has one, else empty.
    """

    component: str
    promise: str
    project: str
    limit: float
    unit: str
    value: float | None
    standing: SetPointState
    detail: str


class StatusView(BaseModel):
    """Every promise; `standing` is broken when one of them is, and kept only when each of them is.

    `reason` is why this server cannot write or hear, empty while it can; then nothing of it is kept.
    """

    version: str
    standing: SetPointState
    reason: str
    items: list[SetPointView]


def _sources(request: Request) -> StatusSources:
    overview: StatusSources = request.app.state.overview
    return overview


CurrentSources = Annotated[StatusSources, Depends(_sources)]
router = APIRouter(tags=["status"], responses=ERRORS)


@router.get("/healthz", responses={503: {"model": Health, "description": "It cannot"}})
async def healthz(response: Response, overview: CurrentSources) -> Health:
    """200 while this server writes its database and hears its nodes, else 503 and why. No token needed."""
    health = overview.health()
    if health.impairments:
        response.status_code = 503
    return Health(
        status="failing" if health.impairments else "ok",
        reason=health.reason,
        impairments=[each.value for each, _ in health.impairments],
    )


@router.get("/api/v1/status")
async def status(caller: CurrentCaller, overview: CurrentSources) -> StatusView:
    """Set points: target, current value, state; measured on what the caller may read."""
    rows = await overview.set_points(caller)
    health = overview.health()
    return StatusView(
        version=__version__,
        standing=overall_state(rows, health),
        reason=health.reason,
        items=[_set_point_view(row) for row in rows],
    )


def _set_point_view(row: SetPoint) -> SetPointView:
    return SetPointView(
        component=row.component,
        promise=row.promise,
        project=row.project,
        limit=row.limit,
        unit=row.unit,
        value=row.value,
        standing=row.standing,
        detail=row.detail,
    )


class WarnedAnswers:
    """An application whose every answer says in a header what is wrong with this server, while it is."""

    def __init__(self, app: ASGIApp, health: HealthSource) -> None:
        self._app, self._health = app, health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def warned(message: Message) -> None:
            if message["type"] == "http.response.start":
                warning = self._health().warning
                if warning:
                    header = (WARNING_HEADER.lower().encode(), quote(warning, safe=" :;,()/'").encode())
                    message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await self._app(scope, receive, warned if scope["type"] == "http" else send)

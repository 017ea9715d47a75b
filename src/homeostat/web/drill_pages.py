"""The pages of drills: what ran and how it ended, the outages over time, and one run's report."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from homeostat.drills import api as drills
from homeostat.drills.reports.drawing import picture
from homeostat.web.edge import CurrentVisitor, PageRoute
from homeostat.web.pages import show_page
from homeostat.web.trend_picture import trend_picture

LISTED = 50

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


def _parts(request: Request) -> drills.DrillsApi:
    parts: drills.DrillsApi = request.app.state.drills
    return parts


Parts = Annotated[drills.DrillsApi, Depends(_parts)]


@router.get("/drills")
async def drill_list(
    request: Request,
    visitor: CurrentVisitor,
    parts: Parts,
    drill: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """What ran, newest first, and the outages of each drill over its runs."""
    listed = await drills.list_runs(visitor.caller, parts, drill, None, LISTED)
    trends = (await drills.show_trends(visitor.caller, parts, drill)).items
    return show_page(
        request,
        "drills.html",
        visitor,
        "drills",
        runs=listed.items,
        more=listed.next is not None,
        halt=listed.halt,
        running=sum(row.state == "running" for row in listed.items),
        only=drill,
        trends=[(trend, trend_picture(trend)) for trend in trends],
    )


@router.get("/drills/{run}")
async def one_run(
    request: Request, run: Annotated[str, Path(max_length=63)], visitor: CurrentVisitor, parts: Parts
) -> Response:
    """One run: verdict, requirements with their bounds, what was out by layer, who noticed."""
    shown = await drills.show_run(run, visitor.caller, parts)
    report = shown.report
    return show_page(
        request,
        "drill.html",
        visitor,
        "drills",
        run=shown,
        report=report,
        drawn=None if report is None else picture(report),
        noticed=await drills.show_noticed(run, visitor.caller, parts),
    )

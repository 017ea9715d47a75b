"""The dashboard pages of drills: list of runs, outages over time, report of a run, halt and resume."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from homeostat.drills import api as drills
from homeostat.drills.reports.renderings import bounds, heading, limit, outage_chart, remark, span
from homeostat.drills.reports.trends import trend_picture
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.errors import BadInput
from homeostat.web.page_route import CurrentVisitor, PageRoute, WritingVisitor, add_filters, show_page

HERE = "/console/drills"
LISTED = 50
FIELDS_MAX = 20

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)
add_filters(bounds=bounds, heading=heading, limit=limit, remark=remark, span=span)


@router.get("/drills")
async def drill_list(
    request: Request,
    visitor: CurrentVisitor,
    parts: drills.Parts,
    drill: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """What ran, newest first, and the outages of each drill over its runs."""
    listed = await drills.list_runs(visitor.caller, parts, drill, None, LISTED)
    trends = (await drills.show_trends(visitor.caller, parts, drill)).items
    halted = parts.known.claims.halt
    return show_page(
        request,
        "drills.html",
        visitor,
        "drills",
        runs=listed.items,
        more=listed.next is not None,
        halt=listed.halt,
        may_halt=_drills(visitor.caller),
        may_resume=_drills(visitor.caller) and halted is not None and visitor.caller.may_write(halted.owner),
        running=sum(row.state == "running" for row in listed.items),
        only=drill,
        trends=[(trend, trend_picture(trend)) for trend in trends],
    )


@router.post("/drills/halt")
async def halt(request: Request, visitor: WritingVisitor, parts: drills.Parts) -> Response:
    """End every drill that runs, and let none begin."""
    fields = parse_qs((await request.body()).decode(errors="replace"), max_num_fields=FIELDS_MAX)
    why = fields.get("why", [""])[0].strip()
    try:
        wanted = drills.HaltBody(why=why)
    except ValidationError as error:
        raise BadInput("why", why, error.errors()[0]["msg"]) from error
    await drills.halt_drills(wanted, visitor.caller, parts)
    return RedirectResponse(HERE, 303)


@router.post("/drills/resume")
async def resume(visitor: WritingVisitor, parts: drills.Parts) -> Response:
    await drills.resume_drills(visitor.caller, parts)
    return RedirectResponse(HERE, 303)


@router.get("/drills/{run}")
async def one_run(
    request: Request, run: Annotated[str, Path(max_length=63)], visitor: CurrentVisitor, parts: drills.Parts
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
        drawn=None if report is None else outage_chart(report),
        noticed=await drills.show_noticed(run, visitor.caller, parts),
        may_halt=_drills(visitor.caller),
    )


def _drills(caller: Caller) -> bool:
    return caller.role in (Role.ADMIN, Role.OPERATOR)

"""The page of silences: what nobody is told of, a form to silence something, a button to end it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Path, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from homeostat.contracts.nouns import FaultKind
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.errors import BadInput
from homeostat.notices import silences_api as silences
from homeostat.web.edge import CurrentVisitor, PageRoute, WritingVisitor
from homeostat.web.pages import show_page

HERE = "/console/silences"
LASTS = (
    ("30 minutes", 1_800),
    ("2 hours", 7_200),
    ("8 hours", 28_800),
    ("1 day", 86_400),
    ("7 days", 604_800),
)
FIELDS_MAX = 20

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


def _parts(request: Request) -> silences.SilencesApi:
    parts: silences.SilencesApi = request.app.state.silences
    return parts


Parts = Annotated[silences.SilencesApi, Depends(_parts)]


@router.get("/silences")
async def silence_list(request: Request, visitor: CurrentVisitor, parts: Parts) -> Response:
    """What is silenced now, and what was last."""
    caller = visitor.caller
    rows = (await silences.list_silences(caller, parts, True, 50)).items
    rows.sort(key=lambda row: row.state is silences.Standing.OVER)
    longest_s = parts.settings.silence_longest_s
    return show_page(
        request,
        "silences.html",
        visitor,
        "silences",
        rows=[(row, _may_end(caller, row)) for row in rows],
        active=sum(row.state is silences.Standing.ACTIVE for row in rows),
        scopes=_scopes(caller),
        names=_names(caller, parts),
        lasts=[each for each in LASTS if each[1] <= longest_s] or [(f"{longest_s:g} seconds", longest_s)],
    )


@router.post("/silences")
async def create(request: Request, visitor: WritingVisitor, parts: Parts) -> Response:
    """Silence what the form says."""
    fields = parse_qs((await request.body()).decode(errors="replace"), max_num_fields=FIELDS_MAX)
    given = {name: values[0].strip() for name, values in fields.items()}
    scope = given.get("scope", "")
    if scope not in silences.SCOPES:
        raise BadInput("scope", scope, f"one of {', '.join(silences.SCOPES)}")
    body = {scope: given.get("name", ""), "reason": given.get("reason", ""), "for_s": given.get("for_s", "")}
    try:
        wanted = silences.SilenceBody.model_validate(body)
    except ValidationError as error:
        found = error.errors()[0]
        field = str(found["loc"][0])
        raise BadInput("name" if field == scope else field, found["input"], found["msg"]) from error
    await silences.create_silence(wanted, visitor.caller, parts)
    return RedirectResponse(HERE, 303)


@router.post("/silences/{id}/end")
async def end(id: Annotated[str, Path(max_length=63)], visitor: WritingVisitor, parts: Parts) -> Response:
    """End it now."""
    await silences.end_silence(id, visitor.caller, parts)
    return RedirectResponse(HERE, 303)


def _may_end(caller: Caller, row: silences.SilenceView) -> bool:
    return row.state is not silences.Standing.OVER and caller.may_write(row.project)


def _scopes(caller: Caller) -> tuple[str, ...]:
    """What this caller may silence; nothing for who may only look."""
    match caller.role:
        case Role.ADMIN:
            return silences.SCOPES
        case Role.OPERATOR:
            return ("resource", "kind", "owner")
        case _:
            return ()


def _names(caller: Caller, parts: silences.SilencesApi) -> list[str]:
    """What can be named, for who types."""
    topology = parts.topology()
    own = [row.id for row in topology.resources.values() if caller.may_read(row.owner)]
    hosts = [*topology.nodes, *parts.silences.zones.values()] if caller.role is Role.ADMIN else []
    return [*sorted(set(hosts)), *sorted(own), *(kind.value for kind in FaultKind)]

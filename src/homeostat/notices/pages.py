"""The pages of notices: subscriptions with a test button, and silences with a form."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from homeostat.contracts.nouns import LABEL, FaultKind
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.errors import BadInput, NotAllowed
from homeostat.notices import api as notices
from homeostat.notices import silences_api as silences
from homeostat.notices import subscriptions_api as subscriptions
from homeostat.notices.silences_api import CurrentSilencesApi
from homeostat.notices.subscriptions_api import CurrentNoticesApi
from homeostat.web.page_route import CurrentVisitor, PageRoute, WritingVisitor, page, show_page

router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)


@router.get("/subscriptions")
async def show_subscriptions(request: Request, visitor: CurrentVisitor, parts: CurrentNoticesApi) -> Response:
    """The subscriptions, the last notice of each, and a button that sends a test."""
    caller = visitor.caller
    rows = (await subscriptions.list_subscriptions(caller, parts)).items
    sent = (await notices.list_notices(caller, parts, None, None, 500)).items
    latest = {each.subscription: each for each in reversed(sent)}
    return show_page(
        request,
        "subscriptions.html",
        visitor,
        "subscriptions",
        rows=[(row, latest.get(row.name), caller.may_write(row.project)) for row in rows],
    )


@router.post("/subscriptions/{name}/test")
async def test_subscription(
    name: Annotated[str, Path(pattern=LABEL)],
    visitor: WritingVisitor,
    parts: CurrentNoticesApi,
) -> Response:
    """Send a signed notice that says that nothing is wrong to each endpoint, and show the answers."""
    row = await subscriptions.show_subscription(name, visitor.caller, parts)
    if not visitor.caller.may_write(row.project):
        raise NotAllowed(f"{visitor.caller.role.value}s do not send test notices of {row.project}")
    tried = await subscriptions.test_subscription(name, visitor.caller, parts)
    return HTMLResponse(page("test_notice.html", tries=tried.items))


HERE = "/console/silences"
LASTS = (
    ("30 minutes", 1_800),
    ("2 hours", 7_200),
    ("8 hours", 28_800),
    ("1 day", 86_400),
    ("7 days", 604_800),
)
FIELDS_MAX = 20


@router.get("/silences")
async def silence_list(request: Request, visitor: CurrentVisitor, parts: CurrentSilencesApi) -> Response:
    """What is silenced now, and what was last."""
    caller = visitor.caller
    rows = (await silences.list_silences(caller, parts, True, 50)).items
    over = silences.SilenceState.OVER
    rows.sort(key=lambda row: row.state is over)
    longest_s = parts.settings.silence_longest_s
    return show_page(
        request,
        "silences.html",
        visitor,
        "silences",
        rows=[(row, row.state is not over and caller.may_write(row.project)) for row in rows],
        active=sum(row.state is silences.SilenceState.ACTIVE for row in rows),
        scopes=_scopes(caller),
        names=_names(caller, parts),
        lasts=[each for each in LASTS if each[1] <= longest_s] or [(f"{longest_s:g} seconds", longest_s)],
    )


@router.post("/silences")
async def create_silence(request: Request, visitor: WritingVisitor, parts: CurrentSilencesApi) -> Response:
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
async def end_silence(
    id: Annotated[str, Path(max_length=63)], visitor: WritingVisitor, parts: CurrentSilencesApi
) -> Response:
    """End it now."""
    await silences.end_silence(id, visitor.caller, parts)
    return RedirectResponse(HERE, 303)


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

"""The route /api/v1/drills/hosts: carries requests of a drill to a host and its responses back.

For administrators: hosts are nobody else's. A disruptive request needs the open claim of the caller's own
run, and no halt. What may be broken on a host is decided there alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import NodeRequest, NodeResponse
from homeostat.drills.api import DrillsApi
from homeostat.drills.store import RunRow
from homeostat.drills.transports import port
from homeostat.fleet.rpc import NodeRpc
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.errors import BadInput, NotAllowed, NotFound, RetryLater
from homeostat.kernel.http import ERRORS, CurrentCaller, Text, view_from

WAIT_S = 1.0
"""For an answer; then who asked does so again. Longer, and a message that was lost costs a monitor its life:
it is lost after two seconds of silence."""
NODE_POWER = "node_power"
_MOMENT_MAX = 2**62

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


@dataclass(frozen=True, slots=True)
class DrilledHostsApi:
    """What the route stands on: `app.state.drilled_hosts`."""

    drills: DrillsApi
    relay: NodeRpc


class QuestionBody(BaseModel):
    """A question under a name that no other one has; the same again gets the same answer.

    `life` and `until_ns` as an earlier answer of that node said them: for whom and until when it holds. What
    would be something else when done twice needs both, or it could be begun long after the claim that let it
    through.
    """

    model_config = ConfigDict(extra="forbid")

    question: Name
    words: port.HostRequest
    life: Annotated[Text, Field(max_length=64)] = ""
    until_ns: Annotated[int, Field(ge=0, le=_MOMENT_MAX)] = 0


class RefusalView(BaseModel):
    """An error of the host, by its kind."""

    kind: str
    message: str
    field: str | None
    value: str | None
    accepted: str | None


class AnswerView(BaseModel):
    """`silent`: nothing was heard yet; `taken`: the node works on it; ask again in both cases."""

    state: Literal["answered", "taken", "silent"]
    life: str
    at_ns: int
    answer: Any
    refusal: RefusalView | None


def _parts(request: Request) -> DrilledHostsApi:
    parts: DrilledHostsApi = request.app.state.drilled_hosts
    return parts


Parts = Annotated[DrilledHostsApi, Depends(_parts)]
router = APIRouter(prefix="/api/v1/drills/hosts", tags=["drills"], responses=ERRORS)


@router.post("/{host}/questions")
async def ask_host(
    host: Annotated[str, Path(max_length=63)], body: QuestionBody, caller: CurrentCaller, parts: Parts
) -> AnswerView:
    """Ask a host's node process; waits for a second. Without a claim, nothing that changes the host."""
    if caller.role is not Role.ADMIN:
        raise NotAllowed("only an administrator drills a host through its node process")
    if HostId(host) not in parts.drills.topology().nodes:
        raise NotFound(f"there is no host {host!r}; `homeostat host ls` shows those with a node process")
    if port.is_once_only(body.words):
        for field, given in (("life", body.life), ("until_ns", body.until_ns)):
            if not given:
                raise BadInput(field, None, f"what an answer of {host} said, as to the question `clock`")
    await _refuse_change(parts.drills, caller, host, body.words)
    words = body.words.model_dump(mode="json")
    asked = NodeRequest(body.question, parts.relay.epoch, words, body.life, body.until_ns)
    return _view(await parts.relay.ask(HostId(host), asked, WAIT_S))


async def _refuse_change(parts: DrillsApi, caller: Caller, host: str, words: port.HostRequest) -> None:
    """What breaks, keeps broken or starts something is done for a run of this caller's alone."""
    match words:
        case port.VerbRequest(verb="inject"):
            row = await _run(parts, caller, words.fault)
            _refuse_others(row, _hit(host, words.record))
            # Renewed in the database: a server that was deposed must let no change through.
            if (why := await parts.register.renew(row.run)) is not None:
                raise NotAllowed(f"no further fault is injected on {host} for run {row.run}: {why}")
        case port.RenewRequest():
            row = await _run(parts, caller, words.fault)
            if (why := await parts.register.renew(row.run)) is not None:
                # Not an end by itself: the host undoes it at its deadline, and the tool hears why elsewhere.
                raise RetryLater(f"the fault of run {row.run} on {host} is not held any longer: {why}")
        case port.RestartRequest():
            row = await _run(parts, caller, words.run)
            _refuse_others(row, host)
            if row.verdict:
                raise NotAllowed(f"run {row.run} has its report; nothing is started for it any more")


async def _run(parts: DrillsApi, caller: Caller, run: str) -> RunRow:
    """The run that a fault is named after, begun by this very token."""
    try:
        row, _ = await parts.register.find(run, caller.may_read)
    except NotFound:
        raise NotAllowed(f"no run {run} was begun; a fault has the id of the run that it is for") from None
    if row.by != caller.name:
        raise NotAllowed(f"run {run} was begun by {row.by}; only that token may inject faults for it")
    return row


def _refuse_others(row: RunRow, hit: str) -> None:
    """Only the hosts that were announced are hit."""
    if hit not in row.hosts:
        announced = ", ".join(row.hosts) or "no host"
        raise NotAllowed(f"run {row.run} was announced for {announced}, not for {hit}")


def _hit(host: str, record: Mapping[str, Any]) -> str:
    """The host that is broken: the power of one is switched on another."""
    if record.get("injector") != NODE_POWER:
        return host
    target = record.get("target")
    return str(target.get("host") if isinstance(target, dict) else None)


def _view(said: NodeResponse | None) -> AnswerView:
    if said is None:
        return AnswerView(state="silent", life="", at_ns=0, answer=None, refusal=None)
    shown = said.refusal and view_from(RefusalView, said.refusal)
    return view_from(AnswerView, said, state="taken" if said.taken else "answered", refusal=shown)

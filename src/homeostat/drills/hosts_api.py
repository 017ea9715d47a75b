"""/api/v1/drills/hosts: what a drill asks of a host, carried to its node process and back.

For administrators: hosts are nobody else's. What does harm needs the open claim of the asker's own run, and
no halt. What may be broken on a host is decided there alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import Answered, Asked
from homeostat.drills.api import DrillsApi
from homeostat.drills.leader.relay import NodeRelay
from homeostat.drills.store import Run
from homeostat.drills.transports.questions import AskRenew, AskRestart, AskVerb, Question, once_only
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.errors import BadInput, NotAllowed, NotFound, RetryLater
from homeostat.kernel.http import ERRORS, CurrentCaller, Text

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
    relay: NodeRelay


class QuestionBody(BaseModel):
    """A question under a name that no other one has; the same again gets the same answer.

    `life` and `until_ns` as an earlier answer of that node said them: for whom and until when it holds. What
    would be something else when done twice needs both, or it could be begun long after the claim that let it
    through.
    """

    model_config = ConfigDict(extra="forbid")

    question: Name
    words: Question
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
    """Ask a host's node process; waits for a second. What does harm is refused without a claim."""
    if caller.role is not Role.ADMIN:
        raise NotAllowed("only an administrator drills a host through its node process")
    if HostId(host) not in parts.drills.topology().nodes:
        raise NotFound(f"there is no host {host!r}; `homeostat host ls` shows those with a node process")
    if once_only(body.words):
        for field, given in (("life", body.life), ("until_ns", body.until_ns)):
            if not given:
                raise BadInput(field, None, f"what an answer of {host} said, as to the question `clock`")
    await _refuse_harm(parts.drills, caller, host, body.words)
    words = body.words.model_dump(mode="json")
    asked = Asked(body.question, parts.relay.epoch, words, body.life, body.until_ns)
    return _view(await parts.relay.ask(HostId(host), asked, WAIT_S))


async def _refuse_harm(parts: DrillsApi, caller: Caller, host: str, words: Question) -> None:
    """What breaks, keeps broken or starts something is done for a run of this caller's alone."""
    match words:
        case AskVerb(verb="inject"):
            row = await _run(parts, caller, words.fault)
            _refuse_others(row, _hit(host, words.record))
            # Renewed in the database: a server that does not lead any more must not let harm through.
            if (why := await parts.register.renew(row.run)) is not None:
                raise NotAllowed(f"nothing more is broken on {host} for run {row.run}: {why}")
        case AskRenew():
            row = await _run(parts, caller, words.fault)
            if (why := await parts.register.renew(row.run)) is not None:
                # Not an end by itself: the host undoes it at its deadline, and the tool hears why elsewhere.
                raise RetryLater(f"what run {row.run} broke on {host} is not kept so: {why}")
        case AskRestart():
            row = await _run(parts, caller, words.run)
            _refuse_others(row, host)
            if row.verdict:
                raise NotAllowed(f"run {row.run} has its report; nothing is started for it any more")
        case _:
            pass


async def _run(parts: DrillsApi, caller: Caller, run: str) -> Run:
    """The run that a fault is named after, begun by this very token."""
    try:
        row, _ = await parts.register.find(run, caller.may_read)
    except NotFound:
        raise NotAllowed(f"no run {run} was begun; a fault has the id of the run that it is for") from None
    if row.by != caller.name:
        raise NotAllowed(f"run {run} was begun by {row.by}; only that token breaks something for it")
    return row


def _refuse_others(row: Run, hit: str) -> None:
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


def _view(said: Answered | None) -> AnswerView:
    if said is None:
        return AnswerView(state="silent", life="", at_ns=0, answer=None, refusal=None)
    refusal = said.refusal
    shown = refusal and RefusalView(
        kind=refusal.kind,
        message=refusal.message,
        field=refusal.field,
        value=refusal.value,
        accepted=refusal.accepted,
    )
    state: Literal["answered", "taken"] = "taken" if said.taken else "answered"
    return AnswerView(state=state, life=said.life, at_ns=said.at_ns, answer=said.answer, refusal=shown)

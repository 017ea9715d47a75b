"""Reports, acts and their ends as tests need them."""

from __future__ import annotations

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import Report
from homeostat.contracts.wire import Finish, Intent, Outcome


def report(
    resource: str = "web",
    state: ResourceState = ResourceState.UP,
    *,
    intended: Intent | None = None,
    finished: Finish | None = None,
    generation: int = 0,
) -> Report:
    return Report(
        number=1,
        resource=ResourceId(resource),
        kind=ResourceKind.SERVICE,
        owner=Owner("platform"),
        agent="ocf:homeostat:process",
        state=state,
        reason="as the test says",
        at_ns=10,
        mono_ns=20,
        intended=intended,
        finished=finished,
        generation=generation,
    )


def intent(action: str) -> Intent:
    return Intent(action, "restart", 20.0, "it is down")


def finish(action: str, outcome: Outcome = Outcome.OK) -> Finish:
    return Finish(action, outcome, 12.5, "started")

"""The set points of notices, project by project: how long a consumer that answers waits, and who does not.

The two are never mixed: a consumer that does not answer costs its project the second line, and nobody the
first one. Measured over a window of time, so that what is over is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from homeostat.contracts.nouns import INFRASTRUCTURE, Owner, SetPoint, SetPointState
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.database import Readers
from homeostat.notices.delivery import Delivery
from homeostat.notices.delivery_window import NO_DELIVERY, ProjectDelivery
from homeostat.notices.store import earlier_deliveries

COMPONENT = "notices"
TOLD = "notice delivered to consumers that answer"
ANSWERING = "subscriptions whose consumer does not answer"
PROJECTS_MAX = 100
OTHERS = "(all others)"
_NAMES_MAX = 10


@dataclass(slots=True)
class NoticeSetPoints:
    """`homeostat status`, the rows of notices. `told_within_s` is the target."""

    delivery: Delivery
    readers: Readers
    told_within_s: float
    _is_loaded: bool = field(default=False, init=False)

    async def __call__(self, caller: Caller) -> Sequence[SetPoint]:
        """Measured now: every project for an administrator, his own for anybody else."""
        if caller.observes_only or (caller.role is not Role.ADMIN and caller.owner == INFRASTRUCTURE):
            return ()
        window_s = self.delivery.window.window_s
        if not self._is_loaded:
            since_ns = self.delivery.started_ns - round(window_s * 1e9)
            rows = await self.readers.read(
                partial(earlier_deliveries, since_ns=since_ns, until_ns=self.delivery.started_ns)
            )
            if not self._is_loaded:  # two may have asked at once
                self.delivery.window.load(rows)
                self._is_loaded = True
        found = self.delivery.by_project()
        if caller.role is not Role.ADMIN:
            found = {Owner(caller.owner): found.get(Owner(caller.owner), NO_DELIVERY)}
        return notice_set_points(found, self.told_within_s, window_s)


def notice_set_points(
    found: Mapping[Owner, ProjectDelivery], told_within_s: float, window_s: float
) -> list[SetPoint]:
    """Two rows for each project. With more than `PROJECTS_MAX` the worst have their own. Pure."""
    if not found:
        return _rows("", NO_DELIVERY, told_within_s, window_s)
    ordered = sorted(found, key=lambda project: (not _is_bad(found[project], told_within_s), project))
    own, rest = ordered[:PROJECTS_MAX], ordered[PROJECTS_MAX:]
    shown = [row for each in sorted(own) for row in _rows(each, found[each], told_within_s, window_s)]
    if rest:
        together = NO_DELIVERY
        for project in rest:
            together = together.merge(found[project])
        shown += _rows(OTHERS, together, told_within_s, window_s)
    return shown


def _is_bad(found: ProjectDelivery, told_within_s: float) -> bool:
    worst_s = _worst_s(found)
    return bool(found.silent or found.unanswering or (worst_s is not None and worst_s > told_within_s))


def _worst_s(found: ProjectDelivery) -> float | None:
    spans_ms = [each for each in (found.slowest_ms, found.overdue_ms) if each is not None]
    return max(spans_ms) / 1e3 if spans_ms else None


def _rows(project: str, found: ProjectDelivery, told_within_s: float, window_s: float) -> list[SetPoint]:
    return [_told(project, found, told_within_s, window_s), _answering(project, found, window_s)]


def _told(project: str, found: ProjectDelivery, told_within_s: float, window_s: float) -> SetPoint:
    worst_s = _worst_s(found)
    state = SetPointState.UNKNOWN if worst_s is None or found.unmeasured else SetPointState.KEPT
    if worst_s is not None and worst_s > told_within_s:
        state = SetPointState.BROKEN
    said = [f"slowest of {found.answered} in {_span(window_s)}, commit to answer"] if found.answered else []
    if found.overdue_ms is not None and found.overdue_ms > (found.slowest_ms or 0.0):
        said.insert(0, f"one is due for {found.overdue_ms / 1e3:.1f} s and not sent yet")
    if found.unmeasured:
        said.append(f"{found.unmeasured} queued before the server started have no length")
    detail = "; ".join(said) or f"none in {_span(window_s)}"
    return SetPoint(
        COMPONENT, TOLD, told_within_s, "s", worst_s, state, detail, project=project, needs_nodes=False
    )


def _answering(project: str, found: ProjectDelivery, window_s: float) -> SetPoint:
    names = sorted(found.silent | found.unanswering)
    was_tried = bool(names or found.answered or found.late or found.unmeasured)
    said = [", ".join(names[:_NAMES_MAX]) + (" and more" if len(names) > _NAMES_MAX else "")] if names else []
    if found.late:
        slowest = (
            "" if found.slowest_late_ms is None else f", the slowest {found.slowest_late_ms / 1e3:.1f} s"
        )
        said.append(f"{found.late} delivered late in {_span(window_s)} after failed attempts{slowest}")
    state = SetPointState.BROKEN if names else SetPointState.KEPT if was_tried else SetPointState.UNKNOWN
    detail = "; ".join(said) or ("all answer" if was_tried else f"no notice in {_span(window_s)}")
    value = len(names) if was_tried else None
    return SetPoint(
        COMPONENT, ANSWERING, 0, "subscriptions", value, state, detail, project=project, needs_nodes=False
    )


def _span(window_s: float) -> str:
    if window_s >= 7200:
        return f"the last {window_s / 3600:g} h"
    return "the last hour" if window_s == 3600 else f"the last {window_s / 60:g} min"

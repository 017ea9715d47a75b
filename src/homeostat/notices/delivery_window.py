"""The delivery of notices in the last hour or so, project by project. Pure; times are passed in.

A delivery counts for us from the commit to the answer, if its consumer answered all the while. One whose
consumer failed meanwhile is *late*: that is the consumer's time, and another line tells of it. One that was
queued before this server started has no length, since nobody saw what happened to it in between.
Invariants: nothing older than the window counts, and the cost does not grow with the number of notices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from homeostat.contracts.nouns import Owner
from homeostat.notices.model import parts_of

_SLICES = 12
"""The window moves in so many steps: what is read together is so many times the number of projects."""
_DESTINATIONS_MAX = 10_000


class ProjectDelivery(NamedTuple):
    """The deliveries of one project. Times in milliseconds, None: there was none.

    `answered` were told by consumers that answered all the while, `late` by such as did not, `unmeasured`
    have no length. `unanswering` are the subscriptions that gave no answer until their notice was given up;
    of now: `silent` are those whose last attempt failed, `overdue_ms` is the longest that a notice is due and
    not yet sent to a consumer that answers. A tuple: thousands of them are put together at once.
    """

    answered: int = 0
    slowest_ms: float | None = None
    late: int = 0
    slowest_late_ms: float | None = None
    unmeasured: int = 0
    unanswering: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    overdue_ms: float | None = None

    def merge(self, other: ProjectDelivery) -> ProjectDelivery:
        """Both together."""
        return ProjectDelivery(
            self.answered + other.answered,
            _longer(self.slowest_ms, other.slowest_ms),
            self.late + other.late,
            _longer(self.slowest_late_ms, other.slowest_late_ms),
            self.unmeasured + other.unmeasured,
            self.unanswering | other.unanswering,
            self.silent | other.silent,
            _longer(self.overdue_ms, other.overdue_ms),
        )


NO_DELIVERY = ProjectDelivery()


def _longer(one_ms: float | None, other_ms: float | None) -> float | None:
    if one_ms is None or other_ms is None:
        return other_ms if one_ms is None else one_ms
    return max(one_ms, other_ms)


@dataclass(frozen=True, slots=True)
class DeliveredNotice:
    """A notice that a consumer took: since when it was due, and when it was answered; one wall clock.

    `since_ns` is None when nobody knows what happened to it before.
    """

    project: Owner
    destination: str
    since_ns: int | None
    answered_ns: int
    attempts: int


@dataclass(slots=True)
class DeliveryWindow:
    """The last `window_s` seconds. `failed_ns` is the last failed attempt of each destination."""

    window_s: float
    failed_ns: dict[str, int] = field(default_factory=dict)
    _slices: dict[int, dict[Owner, ProjectDelivery]] = field(default_factory=dict)
    _before: tuple[int, Mapping[Owner, ProjectDelivery]] | None = None

    def failed(self, destination: str, at_ns: int) -> None:
        """An attempt got no answer, or one that is no delivery."""
        self.failed_ns[destination] = max(at_ns, self.failed_ns.get(destination, 0))
        if len(self.failed_ns) > _DESTINATIONS_MAX:  # of removed subscriptions, too
            oldest_ns = at_ns - round(self.window_s * 1e9)
            self.failed_ns = {name: ns for name, ns in self.failed_ns.items() if ns > oldest_ns}

    def delivered(self, notice: DeliveredNotice) -> None:
        """Count a notice that was taken."""
        since_ns = notice.since_ns
        took_ms = None if since_ns is None else max(0, notice.answered_ns - since_ns) / 1e6
        failed_ns = self.failed_ns.get(notice.destination)
        failed = failed_ns is not None and since_ns is not None and failed_ns >= since_ns
        if notice.attempts > 1 or failed:
            found = ProjectDelivery(late=1, slowest_late_ms=took_ms)
        elif took_ms is None:
            found = ProjectDelivery(unmeasured=1)
        else:
            found = ProjectDelivery(answered=1, slowest_ms=took_ms)
        self._count(notice.project, found, notice.answered_ns)

    def given_up(self, project: Owner, destination: str, at_ns: int) -> None:
        """Count a notice that its consumer never took."""
        self._count(project, ProjectDelivery(unanswering=frozenset({parts_of(destination)[0]})), at_ns)

    def load(self, notices: Iterable[DeliveredNotice]) -> None:
        """Count what was delivered before this server started, in any order.

        An attempt that failed is known only by the one that did not: it was between the two.
        """
        rows = list(notices)
        bad: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            if row.attempts > 1 and row.since_ns is not None:
                bad.setdefault(row.destination, []).append((row.since_ns, row.answered_ns))
        for row in rows:
            since_ns = row.answered_ns if row.since_ns is None else row.since_ns
            spans = bad.get(row.destination, ())
            if row.attempts == 1 and any(
                since_ns <= until and begun <= row.answered_ns for begun, until in spans
            ):
                row = DeliveredNotice(row.project, row.destination, row.since_ns, row.answered_ns, 2)
            self.delivered(row)

    def by_project(self, now_ns: int) -> Mapping[Owner, ProjectDelivery]:
        """What there was in the window, of every project that was to be told anything."""
        self._forget(now_ns)
        number = self._number(now_ns)
        if self._before is None or self._before[0] != number:
            self._before = (number, _together({}, (of for at, of in self._slices.items() if at != number)))
        return _together(self._before[1], [self._slices.get(number, {})])

    def _count(self, project: Owner, found: ProjectDelivery, at_ns: int) -> None:
        number = self._number(at_ns)
        if self._before is not None and number != self._before[0]:
            self._before = None
        if number not in self._slices:
            self._forget(at_ns)
        of_all = self._slices.setdefault(number, {})
        of_all[project] = of_all.get(project, NO_DELIVERY).merge(found)

    def _forget(self, now_ns: int) -> None:
        oldest = self._number(now_ns) - _SLICES
        for number in [each for each in self._slices if each < oldest]:
            del self._slices[number]

    def _number(self, at_ns: int) -> int:
        return int(at_ns / 1e9 / self.window_s * _SLICES)


def _together(
    first: Mapping[Owner, ProjectDelivery], more: Iterable[Mapping[Owner, ProjectDelivery]]
) -> dict[Owner, ProjectDelivery]:
    found = dict(first)
    for each in more:
        for project, delivery in each.items():
            known = found.get(project)
            found[project] = delivery if known is None else known.merge(delivery)
    return found

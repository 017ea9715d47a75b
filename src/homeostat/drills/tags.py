"""Which drill a fault belongs to: an index over the journal's own numbers, asked without the database. Pure.

A fault belongs to a run when it was raised behind the run's beginning and not behind its end, about a host
of the run, or something that was there, or a resource of the run. Drills begin and end behind the faults of
their entry, so the same answer comes out before the commit, after it, and after every restart. A run of a
project tags only faults of that project.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from homeostat.contracts.nouns import (
    INFRASTRUCTURE,
    HostId,
    ResourceId,
    node_subject,
    resource_subject,
)
from homeostat.kernel.journal import Local, Seq


@dataclass(frozen=True, slots=True)
class Span:
    """From the event that began a run to the one that ended it; None while it runs."""

    run: str
    owner: str
    hosts: tuple[HostId, ...]
    resources: tuple[ResourceId, ...]
    began: Seq
    ended: Seq | None = None

    def covers(self, raised: Seq | Local) -> bool:
        """Whether a fault of that number is within. A `Local` is raised now, in an entry to come."""
        if isinstance(raised, Local):
            return self.ended is None
        return self.began < raised and (self.ended is None or raised <= self.ended)

    def tags(self, owner: str) -> bool:
        """Whether the faults of a project may be this run's."""
        return self.owner in (INFRASTRUCTURE, owner)

    def subjects(self) -> Iterable[str]:
        """What it may break."""
        yield from map(node_subject, self.hosts)
        yield from map(resource_subject, self.resources)


@dataclass(slots=True)
class _Lane:
    """The runs about one subject in their order; `open_to` is the latest end among those up to each."""

    spans: list[Span] = field(default_factory=list)
    open_to: list[float] = field(default_factory=list)

    def add(self, span: Span) -> None:
        """One that began behind all others."""
        self.spans.append(span)
        self._reckon(len(self.spans) - 1)

    def replace(self, span: Span) -> None:
        """What is known of a run now; it is one of the last."""
        for number in range(len(self.spans) - 1, -1, -1):
            if self.spans[number].run == span.run:
                self.spans[number] = span
                self._reckon(number)
                return

    def _reckon(self, first: int) -> None:
        del self.open_to[first:]
        for span in self.spans[first:]:
            end = float("inf") if span.ended is None else float(span.ended)
            self.open_to.append(max(end, self.open_to[-1]) if self.open_to else end)

    def newest(self, owner: str, raised: Seq | Local) -> Span | None:
        place = len(self.spans)
        if not isinstance(raised, Local):
            place = bisect_left(self.spans, raised, key=lambda span: span.began)
        at = float("inf") if isinstance(raised, Local) else float(raised)
        for number in range(place - 1, -1, -1):
            if self.open_to[number] < at:
                return None
            if self.spans[number].covers(raised) and self.spans[number].tags(owner):
                return self.spans[number]
        return None


class TagIndex:
    """Used on one event loop. A beginning and an end cost as much as the subjects of that run."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._running: dict[str, Span] = {}
        for span in sorted(spans, key=lambda each: each.began):
            self.add(span)

    def add(self, span: Span) -> None:
        """A run that began behind all others."""
        if span.ended is None:
            self._running[span.run] = span
        for subject in dict.fromkeys(span.subjects()):
            self._lanes.setdefault(subject, _Lane()).add(span)

    def end(self, run: str, ended: Seq) -> None:
        """The run's last event is this one."""
        span = self._running.pop(run, None)
        if span is not None:
            for subject in dict.fromkeys(span.subjects()):
                self._lanes[subject].replace(replace(span, ended=ended))

    def run_of(self, about: str, host: str, owner: str, raised: Seq | Local) -> str:
        """The run of a fault; empty: it is no drill's. `host` is where it was, empty for nowhere."""
        if not self._lanes:
            return ""
        subjects = (about, node_subject(HostId(host))) if host else (about,)
        lanes = (self._lanes.get(subject) for subject in dict.fromkeys(subjects))
        found = [span for lane in lanes if lane and (span := lane.newest(owner, raised)) is not None]
        return max(found, key=lambda span: span.began).run if found else ""

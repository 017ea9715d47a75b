"""The files of the monitors while they grow: what the run waits for is read from where the verdict will be.

Whole lines only. Reckons with the same pure functions as the checkers, so the two cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homeostat.monitors.outage import Outage, measure
from homeostat.monitors.outage import Plan as Sampling
from homeostat.monitors.process_outage import ProcessOutage, ProcessPlan, process_outage, read_sightings
from homeostat.monitors.samples import Answer, Sample, samples_of

_NS_PER_MS = 1_000_000


@dataclass(slots=True)
class _Tail:
    """The lines that a file has got since it was last asked."""

    path: Path
    _at: int = 0

    def lines(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole.decode().splitlines(keepends=True)


@dataclass(frozen=True, slots=True)
class Baseline:
    """An unbroken row of good samples up to now. `since_ns`: when its first one was due."""

    since_ns: int
    until_ns: int
    samples: int
    lateness_ms: float
    rho_ms: float


class FollowedSampler:
    """One sampler's file."""

    def __init__(self, name: str, path: Path, period_ms: float, deadline_ms: float) -> None:
        self.name, self.period_ms = name, period_ms
        self._deadline_ns = round(deadline_ms * _NS_PER_MS)
        self._tail = _Tail(path)
        self._samples: list[Sample] = []

    def look(self) -> bool:
        """Read what is new; whether anything is."""
        new = samples_of(self._tail.lines(), str(self._tail.path))
        self._samples += new
        return bool(new)

    @property
    def known_until_ns(self) -> int:
        """Up to when everything that was due is known: a sample is written at its end, within its deadline.

        0 before the first sample.
        """
        return max(0, self._samples[-1].scheduled_ns - self._deadline_ns) if self._samples else 0

    def baseline(self, from_ns: int, samples: int) -> Baseline | None:
        """The last so many samples in a row, all good, none due before then; None while there are not."""
        row = [each for each in self._samples[-samples:] if each.scheduled_ns >= from_ns]
        if len(row) < samples or any(each.answer is not Answer.OK for each in row):
            return None
        return Baseline(
            since_ns=min(each.scheduled_ns for each in row),
            until_ns=max(each.done_ns for each in row),
            samples=len(row),
            lateness_ms=max(each.lateness_ns for each in row) / _NS_PER_MS,
            rho_ms=max(each.done_ns - each.sent_ns for each in row) / _NS_PER_MS,
        )

    def good_since_ns(self) -> int | None:
        """When the unbroken row of good samples began that reaches to now; None when the last one is bad."""
        since_ns: int | None = None
        for each in reversed(self._samples):
            if each.answer is not Answer.OK:
                break
            since_ns = each.scheduled_ns
        return since_ns

    def outage(self, since_ns: int, fault_ns: int, until_ns: int) -> Outage:
        """What has been seen up to then."""
        period_ns = round(self.period_ms * _NS_PER_MS)
        return measure(self._samples, Sampling(period_ns, fault_ns, until_ns, since_ns))


@dataclass(frozen=True, slots=True)
class FollowedWatch:
    """One process watch's file; a few lines, so it is read whole."""

    name: str
    path: Path
    stable_ms: float

    def outage(self, node_before_ns: int, node_now_ns: int) -> ProcessOutage:
        """What has been seen so far, on the clock of its host."""
        plan = ProcessPlan(node_before_ns, node_now_ns, round(self.stable_ms * _NS_PER_MS))
        return process_outage(read_sightings(self.path), plan)

"""Samples of an open-loop prober, and bounds of a service's outage that hold the truth, made from them.
Pure.

All moments are nanoseconds of CLOCK_BOOTTIME on the prober's own host: they can be subtracted from each other
and from nothing else. What is known of one sample [sent, done]:

* served: the service served at some instant of it;
* refused, error: it was out at some instant of it;
* timed out, late: nobody served from `sent + rho + lateness` on, until a first good answer came back (whose
  arrival was read at most `period + lateness` later). rho is the longest round trip of the baseline.

From evidence of being out that no proof of service separates follows one episode:

    lower = last instant known out - first instant known out
    upper = done of the first proof after it - sent of the last proof before it

so that `upper - lower <= 2 (period + lateness) + 2 rho` for a service that stops and comes back at once.
Nothing is assumed of distributions. Being up for less than a period between two outages is not seen.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from homeostat.kernel.errors import CorruptState


class ProbeAnswer(StrEnum):
    """What came of one probe."""

    OK = "ok"
    LATE = "late"
    """A good answer, but later than a client would put up with: somebody held it."""
    REFUSED = "refused"
    ERROR = "error"
    """A wrong answer (503), or a connection that ended without one."""
    UNTRUSTED = "untrusted"
    """Its certificate could not be verified, so it was not asked."""
    TIMEOUT = "timeout"
    CLIENT_ERROR = "client_error"
    """Our own machine could not even ask; says nothing about the service."""


SERVED = frozenset({ProbeAnswer.OK, ProbeAnswer.LATE})
FAILED = frozenset({ProbeAnswer.REFUSED, ProbeAnswer.ERROR, ProbeAnswer.UNTRUSTED, ProbeAnswer.TIMEOUT})
"""What the source document calls a response failure."""


class Sample(NamedTuple):
    """When it was due, sent, and its end known; on a `fresh` connection; the HTTP `status`, 0 without one.

    A tuple, since a monitor makes one every few milliseconds and a dataclass costs three times as much.
    """

    scheduled_ns: int
    sent_ns: int
    done_ns: int
    answer: ProbeAnswer
    fresh: bool = False
    status: int = 0

    @property
    def lateness_ns(self) -> int:
        """How much too late the prober itself was."""
        return max(0, self.sent_ns - self.scheduled_ns)


def sample_line(sample: Sample) -> str:
    """One line of JSON: `[scheduled, sent, done, answer, fresh, status]`."""
    return '[%d,%d,%d,"%s",%d,%d]\n' % sample  # noqa: UP031  half of what an f-string costs here


def samples_of(lines: Iterable[str], where: str = "samples") -> tuple[Sample, ...]:
    """The samples of these lines, by the time they were sent.

    A last line without its end is what a killed monitor leaves, and is left out; any other line that is not
    a sample raises CorruptState with its number.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            scheduled, sent, done, answer, fresh, status = json.loads(line)
            moments = int(scheduled), int(sent), int(done)
            found.append(Sample(*moments, ProbeAnswer(answer), bool(fresh), int(status)))
        except (ValueError, TypeError) as error:
            raise CorruptState(f"{where}: line {number} is not a sample ({error})") from None
    return tuple(sorted(found, key=lambda sample: sample.sent_ns))


def read_samples(path: Path) -> tuple[Sample, ...]:
    """The samples of a monitor's file; none when there is no file."""
    try:
        with path.open(encoding="utf-8") as file:
            return samples_of(file, str(path))
    except FileNotFoundError:
        return ()


RESOLUTION_SHARE_MAX = 0.05
"""A measurement may decide about a limit only when its bounds are at most this share of it apart, usually."""
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How was sampled. `period_ns` is the common one when several shifted monitors are taken together.

    The window is from `from_ns` to `until_ns`; what ended in it before `fault_ns` is the baseline.
    """

    period_ns: int
    fault_ns: int
    until_ns: int
    from_ns: int = 0


@dataclass(frozen=True, slots=True)
class Episode:
    """One outage. `upper_ms` and `until_ns` None: it had not ended when the window did (censored).

    Served for sure at or after `after_ns` before it, and by `until_ns` after it.
    """

    lower_ms: float
    upper_ms: float | None
    after_ns: int
    until_ns: int | None
    first_bad_ns: int
    last_bad_ns: int
    samples: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Of good answers and of what timed out, from the moment the probe was due (no coordinated omission)."""

    p50_ms: float
    p99_ms: float
    samples: int


@dataclass(frozen=True, slots=True)
class Outage:
    """What a window of samples says. `upper_ms` bounds the longest outage, also one that nobody saw."""

    episodes: tuple[Episode, ...]
    lower_ms: float
    upper_ms: float | None
    literal_ms: float
    """From the first response failure to the last one, as the source document says."""
    total_lower_ms: float
    total_upper_ms: float | None
    gap_ms: float
    """The longest time without a completed good answer around the longest episode: the cross-check."""
    consistent: bool
    """lower <= gap <= upper; not so is a bug."""
    lateness_ms: float
    """The prober's worst, in the whole window."""
    lateness_near_ms: float
    """The prober's worst around the failures: this one is in the bounds."""
    rho_ms: float
    period_ms: float
    answers: Mapping[ProbeAnswer, int]
    baseline_samples: int
    baseline_failed: int
    before: Latency | None
    during: Latency | None

    @property
    def longest(self) -> Episode | None:
        """The episode that may have been the longest; one that did not end comes first."""
        return max(self.episodes, key=_length, default=None)


def resolution_ms(period_ms: float, lateness_ms: float, rho_ms: float) -> float:
    """How far apart the bounds may be: 2 (period + lateness) + 2 rho, in ms."""
    return 2 * (period_ms + lateness_ms) + 2 * rho_ms


def may_decide(limit_ms: float, resolution: float, share: float = RESOLUTION_SHARE_MAX) -> bool:
    """Whether bounds so far apart may decide about a limit; asked before a fault is injected.

    `share`: of the limit, when something else than the usual one was agreed. It says when measuring is worth
    while, never what passes.
    """
    return resolution <= share * limit_ms


def measure(samples: Iterable[Sample], plan: SamplingPlan) -> Outage:
    """Everything a window of samples says of outages."""
    within = (each for each in samples if plan.from_ns <= each.scheduled_ns <= plan.until_ns)
    ordered = sorted(within, key=lambda sample: sample.sent_ns)
    baseline = [sample for sample in ordered if sample.done_ns <= plan.fault_ns]
    rho_ns = max((each.done_ns - each.sent_ns for each in baseline if each.answer in SERVED), default=0)
    near_ns = _lateness_near(ordered)
    served = _Served([each for each in ordered if each.answer in SERVED])
    episodes = [
        _episode(group, served)
        for group in _grouped(_evidence(ordered, served, rho_ns + near_ns, plan.period_ns))
    ]
    longest = max(episodes, key=_length, default=None)
    uppers = [each.upper_ms for each in episodes]
    ended = [upper for upper in uppers if upper is not None]
    unseen_ms = _unseen_ns(served, ordered, plan) / _NS_PER_MS
    upper_ms = max([unseen_ms, *ended]) if len(ended) == len(uppers) else None
    gap_ms = _gap_ns(served, longest, plan) / _NS_PER_MS
    failed = [each.done_ns for each in ordered if each.answer in FAILED]
    return Outage(
        episodes=tuple(episodes),
        lower_ms=max((each.lower_ms for each in episodes), default=0.0),
        upper_ms=upper_ms,
        literal_ms=(max(failed) - min(failed)) / _NS_PER_MS if failed else 0.0,
        total_lower_ms=sum(each.lower_ms for each in episodes),
        total_upper_ms=sum(ended) if len(ended) == len(uppers) else None,
        gap_ms=gap_ms,
        consistent=longest is None
        or (longest.lower_ms <= gap_ms and (longest.upper_ms is None or gap_ms <= longest.upper_ms)),
        lateness_ms=max((each.lateness_ns for each in ordered), default=0) / _NS_PER_MS,
        lateness_near_ms=near_ns / _NS_PER_MS,
        rho_ms=rho_ns / _NS_PER_MS,
        period_ms=plan.period_ns / _NS_PER_MS,
        answers=Counter(each.answer for each in ordered),
        baseline_samples=len(baseline),
        baseline_failed=sum(each.answer is not ProbeAnswer.OK for each in baseline),
        before=latency(baseline),
        during=latency(each for each in ordered if each.scheduled_ns >= plan.fault_ns),
    )


def latency(samples: Iterable[Sample]) -> Latency | None:
    """Quantiles of the time from due to done; None without a sample that was answered or timed out."""
    took = sorted(
        each.done_ns - each.scheduled_ns
        for each in samples
        if each.answer in SERVED or each.answer is ProbeAnswer.TIMEOUT
    )
    if not took:
        return None
    p50, p99 = (took[min(len(took) - 1, math.ceil(share * len(took)) - 1)] for share in (0.5, 0.99))
    return Latency(p50 / _NS_PER_MS, p99 / _NS_PER_MS, len(took))


class _Served:
    """The proofs of service, ready to be asked."""

    def __init__(self, served: Sequence[Sample]) -> None:
        self.by_sent = served
        self._sent = [each.sent_ns for each in served]
        dones = [each.done_ns for each in served]
        self._first_done_from = list(accumulate(reversed(dones), min))[::-1]
        by_done = sorted(served, key=lambda each: each.done_ns)
        self.dones = [each.done_ns for each in by_done]
        self._last_sent_to = list(accumulate((each.sent_ns for each in by_done), max))

    def last_before(self, at_ns: int) -> int | None:
        """The latest `sent` among those done by then: the service served at or after it, before then."""
        number = bisect_right(self.dones, at_ns)
        return self._last_sent_to[number - 1] if number else None

    def first_sent_after(self, at_ns: int) -> int | None:
        """The earliest `done` among those sent from then on."""
        number = bisect_left(self._sent, at_ns)
        return self._first_done_from[number] if number < len(self._sent) else None

    def first_done_after(self, at_ns: int) -> int | None:
        number = bisect_right(self.dones, at_ns)
        return self.dones[number] if number < len(self.dones) else None

    def done_between(self, first_ns: int, last_ns: int) -> Sequence[int]:
        return self.dones[bisect_left(self.dones, first_ns) : bisect_right(self.dones, last_ns)]


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Out at some instant from `low_ns` on; begun by `begun_ns`, not ended before `ended_ns`."""

    sample: Sample
    low_ns: int
    begun_ns: int
    ended_ns: int
    after_ns: int | None
    """Served at or after the last proof before the outage began; None without one."""
    until_ns: int | None
    """Served again by then; None when no proof follows."""


def _evidence(ordered: Sequence[Sample], served: _Served, guard_ns: int, period_ns: int) -> list[_Evidence]:
    """Without an answer in time nobody served from `sent + guard` to `done - guard - period`."""
    found = []
    for each in ordered:
        match each.answer:
            case ProbeAnswer.REFUSED | ProbeAnswer.ERROR | ProbeAnswer.UNTRUSTED:
                low, begun, ended = each.sent_ns, each.done_ns, each.sent_ns
                until = served.first_sent_after(each.done_ns)
            case ProbeAnswer.LATE | ProbeAnswer.TIMEOUT:
                low = begun = each.sent_ns + guard_ns
                until = served.first_done_after(begun)
                ended = (each.done_ns if until is None else min(until, each.done_ns)) - guard_ns - period_ns
                if ended <= begun and served.first_done_after(each.sent_ns) is not None:
                    continue  # it, or others, were served meanwhile: slow, not out
                if ended <= begun:
                    # No instant is sure, only that nobody was served any more: it was out by the end of the
                    # probe and after its begin, each by the guards, since its answer may lie there unread.
                    begun, ended = each.done_ns + guard_ns, each.sent_ns - guard_ns - period_ns
            case ProbeAnswer.OK | ProbeAnswer.CLIENT_ERROR:
                continue
        found.append(_Evidence(each, low, begun, ended, served.last_before(low), until))
    return sorted(found, key=lambda evidence: evidence.low_ns)


def _grouped(evidence: Iterable[_Evidence]) -> list[list[_Evidence]]:
    """Evidence that no proof of service separates, together."""
    groups: list[list[_Evidence]] = []
    served_by_ns: int | None = None
    for each in evidence:
        if not groups or (served_by_ns is not None and each.low_ns >= served_by_ns):
            groups.append([])
            served_by_ns = None
        groups[-1].append(each)
        if each.until_ns is not None:
            served_by_ns = each.until_ns if served_by_ns is None else min(served_by_ns, each.until_ns)
    return groups


def _episode(group: Sequence[_Evidence], served: _Served) -> Episode:
    begun_ns = min(each.begun_ns for each in group)
    ended_ns = max(each.ended_ns for each in group)
    first_ns = min(each.sample.sent_ns for each in group)
    # Without a proof before it, it began before the samples did; the baseline says so too.
    after_ns = min(first_ns if each.after_ns is None else each.after_ns for each in group)
    known = [each.until_ns for each in group if each.until_ns is not None]
    until_ns = max(known) if len(known) == len(group) else None
    # What was under way when it began may still be answered: only the time without answers counts.
    edges = [begun_ns, *served.done_between(begun_ns, ended_ns), ended_ns]
    lower_ns = max(0, *(later - earlier for earlier, later in pairwise(edges)))
    return Episode(
        lower_ms=lower_ns / _NS_PER_MS,
        upper_ms=None if until_ns is None else (until_ns - after_ns) / _NS_PER_MS,
        after_ns=after_ns,
        until_ns=until_ns,
        first_bad_ns=first_ns,
        last_bad_ns=max(each.sample.done_ns for each in group),
        samples=len(group),
    )


def _length(episode: Episode) -> tuple[bool, float, float]:
    return episode.upper_ms is None, episode.upper_ms or 0.0, episode.lower_ms


def _lateness_near(ordered: Sequence[Sample]) -> int:
    """The worst lateness of what was due or sent around the failures; of everything when there is none."""
    bad = [each for each in ordered if each.answer in FAILED or each.answer is ProbeAnswer.LATE]
    if not bad:
        return max((each.lateness_ns for each in ordered), default=0)
    longest = max(each.done_ns - each.sent_ns for each in bad)
    from_ns = min(each.scheduled_ns for each in bad) - longest
    to_ns = max(each.done_ns for each in bad) + longest
    near = (each for each in ordered if each.sent_ns >= from_ns and each.scheduled_ns <= to_ns)
    return max((each.lateness_ns for each in near), default=0)


def _unseen_ns(served: _Served, ordered: Sequence[Sample], plan: SamplingPlan) -> int:
    """The longest time that may have passed between two moments of service, seen or not.

    Two successive proofs [s, d] and [s', d'] leave room for at most d' - s. Before the first proof lies the
    start of the samples, after the last one the end of the window.
    """
    proofs = served.by_sent
    if not proofs:
        return max(0, plan.until_ns - ordered[0].scheduled_ns) if ordered else 0
    inner = (later.done_ns - earlier.sent_ns for earlier, later in pairwise(proofs))
    first_ns = proofs[0].done_ns - ordered[0].scheduled_ns
    return max(0, first_ns, plan.until_ns - proofs[-1].sent_ns, *inner)


def _gap_ns(served: _Served, longest: Episode | None, plan: SamplingPlan) -> int:
    """The longest time between successive completions of good answers within the longest episode."""
    if longest is None:
        return 0
    until_ns = max(plan.until_ns, longest.last_bad_ns) if longest.until_ns is None else longest.until_ns
    around = list(served.done_between(longest.after_ns, until_ns))
    if served.last_before(longest.first_bad_ns) is None:
        around.insert(0, longest.after_ns)
    if longest.until_ns is None:
        around.append(until_ns)
    return max((later - earlier for earlier, later in pairwise(around)), default=0)

"""The rules of a fault: when it begins, flaps, is inhibited, is over; its id; the guests it affects. Pure.

*Hysteresis.* A fault begins at once: waiting would cost the very time that the product promises. It is over
when its subject has been right for `clear_after_s` without a break, measured between two stamps of one clock,
the source's.

*Flapping.* After `max` faults of one subject within `window_s` the next one is raised as flapping: one
notice, and it stays open until its subject has been right for the whole window. Only for what stands for
itself: a host that flaps would hide what runs there, and a doubt about all hosts is no subject. Times are
the source's wall clock, as the faults carry it; they are compared with each other, in windows of minutes.

*Inhibition.* A host that is down explains whatever its node says of what runs there, from the moment of its
death until it is back and settled; and it ends the smaller faults that were open there. Nothing else explains
anything: a guest that runs on another host by now has faults of its own. While nothing can be judged
(`evidence_lost`), the sweep concludes nothing, so there is nothing to inhibit. The faults that inhibit are
rows, read before anything is decided: a start does not forget them.

*Affected.* Written once when a fault is raised and read with each of its notices. The text is small, since a
host may have ten thousand guests: `{"guest":{"blue":["guest-1", ...]}}`, by kind and owner, sorted, so that
the same guests are always the same text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

import orjson

from homeostat.contracts import nouns
from homeostat.contracts.faults import Fault, FaultState, FlapLimits
from homeostat.contracts.nouns import FaultId, Owner, ResourceId, resource_subject
from homeostat.fleet.model import Resource, Topology
from homeostat.notices.model import Affected, AffectedIndex


def fault_id(about: str, evidence: str) -> FaultId:
    """The same evidence always makes the same fault, so that a re-run cannot raise it twice."""
    return FaultId("f-" + hashlib.blake2b(f"{about} {evidence}".encode(), digest_size=6).hexdigest())


NO_AFFECTED = "{}"
LARGE_HOST = 500
"""Guests of a host; of fewer it is written in less than a millisecond."""


def encode_affected(resources: Iterable[Resource]) -> str:
    """The text of these resources."""
    by_kind: dict[str, dict[str, list[str]]] = {}
    for row in sorted(resources, key=lambda each: each.id):
        by_kind.setdefault(row.kind.value, {}).setdefault(row.owner, []).append(row.id)
    return orjson.dumps(by_kind, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=64)
def decode_affected(text: str) -> AffectedIndex:
    """The text as what notices tell. `detail` is the kind."""
    if text == NO_AFFECTED:
        return AffectedIndex()
    return AffectedIndex(
        Affected(resource_subject(ResourceId(name)), Owner(owner), kind)
        for kind, by_owner in orjson.loads(text).items()
        for owner, names in by_owner.items()
        for name in names
    )


NO_SUBJECTS: frozenset[str] = frozenset()


@lru_cache(maxsize=64)
def subjects_of(text: str) -> frozenset[str]:
    """The subjects that such a text names."""
    return NO_SUBJECTS if text == NO_AFFECTED else frozenset(each.subject for each in decode_affected(text))


def prepare_affected(topology: Topology) -> None:
    """Write down who would suffer from the death of one great host. 20 ms for 10 000 guests.

    For a moment at which nobody waits. It is done again when another thing runs there.
    """
    host = topology.unwritten(LARGE_HOST)
    if host is not None:
        for each in decode_affected(topology.running(host, encode_affected)).by_owner.values():
            if len(each) >= LARGE_HOST:
                each.as_json  # noqa: B018 - kept for the notices


class FaultEffect(Enum):
    """What one new level does to the fault of its subject; the value is the sentence for `explain`."""

    NOTHING = "nothing is wrong and nothing was"
    RAISE = "failed, and no fault is open"
    KEEP = "the open fault already says so"
    HOLD = "up again; the fault clears when it stays up"
    REOPEN = "failed again before the fault cleared: the same fault goes on"
    CLEAR = "up and stable again"
    CLEAR_AND_RAISE = "it was up and stable, then failed again: a new fault"
    WITHDRAW = "it was stopped on purpose"
    """Only of a node process. What failed and was stopped before it was right again still does not work: to
    its consumers the end of its fault would be an all-clear."""


def effect_of(
    fault: Fault | None, state: nouns.ResourceState, mono_ns: int | None, clear_after_s: float
) -> FaultEffect:
    """What the level `state` means, stamped `mono_ns` on the source's monotonic clock.

    Without a stamp (the level came from a resync) nothing is known of the time between, so that the same
    fault goes on.
    """
    match state:
        case nouns.ResourceState.DOWN | nouns.ResourceState.FAILED:
            return _wrong(fault, mono_ns, clear_after_s)
        case nouns.ResourceState.UP:
            if fault is None:
                return FaultEffect.NOTHING
            return FaultEffect.HOLD if fault.state is FaultState.OPEN else FaultEffect.KEEP
        case nouns.ResourceState.STOPPED:
            return _stopped(fault, mono_ns, clear_after_s)
        case nouns.ResourceState.STARTING | nouns.ResourceState.UNKNOWN:
            return FaultEffect.NOTHING if fault is None else FaultEffect.KEEP


def _wrong(fault: Fault | None, mono_ns: int | None, clear_after_s: float) -> FaultEffect:
    if fault is None:
        return FaultEffect.RAISE
    if fault.state is FaultState.OPEN:
        return FaultEffect.KEEP
    if fault.kind is nouns.FaultKind.HOST_DOWN:
        return FaultEffect.REOPEN  # a host is right when what runs there is, and then a tick has cleared it
    was_stable = _was_right_for(fault, mono_ns, clear_after_s)
    return FaultEffect.CLEAR_AND_RAISE if was_stable else FaultEffect.REOPEN


def _stopped(fault: Fault | None, mono_ns: int | None, clear_after_s: float) -> FaultEffect:
    """It was stopped on purpose, which makes nothing right."""
    if fault is None:
        return FaultEffect.NOTHING
    if fault.kind is not nouns.FaultKind.RESOURCE_DOWN:
        return FaultEffect.WITHDRAW
    if fault.state is FaultState.OPEN:
        return FaultEffect.KEEP
    return FaultEffect.CLEAR if _was_right_for(fault, mono_ns, clear_after_s) else FaultEffect.REOPEN


def _was_right_for(fault: Fault, mono_ns: int | None, seconds: float) -> bool:
    """Whether a clearing fault's subject was right for so long before this moment, as far as is known."""
    if mono_ns is None or fault.up_mono_ns is None:
        return False
    right_for_s = (mono_ns - fault.up_mono_ns) / 1e9
    # A negative span means that the machine was booted in between: its clock began anew.
    return right_for_s < 0 or right_for_s >= seconds


class OutageBounds(NamedTuple):
    """The shortest and the longest that an outage can have been, in ms; None: nobody knows."""

    lower_ms: float | None = None
    upper_ms: float | None = None


UNKNOWN_OUTAGE = OutageBounds()


def outage_bounds(fault: Fault) -> OutageBounds:
    """The bounds of an outage on its source's monotonic clock; unknown when no boot of it saw both ends.

    At least from the first bad to the last bad evidence, at most from the last good before to the first good
    after.
    """
    if fault.up_ns is None or fault.up_mono_ns is None or fault.raised_mono_ns is None:
        return UNKNOWN_OUTAGE
    span_ns = fault.up_mono_ns - fault.raised_mono_ns
    # The clock begins anew with a boot, and may be past the old stamp by now. But then the outage is longer
    # by the wall clock than the machine has been up: within one boot only a clock that was set looks so.
    if span_ns < 0 or fault.up_ns - fault.raised_ns >= fault.up_mono_ns:
        return UNKNOWN_OUTAGE
    return bounds_between((fault.good_mono_ns, fault.raised_mono_ns), (fault.bad_mono_ns, fault.up_mono_ns))


def bounds_between(begin: tuple[int | None, int], end: tuple[int | None, int]) -> OutageBounds:
    """`begin`: the last good and the first bad evidence, `end`: the last bad and the first good, on one
    clock."""
    (good_ns, first_bad_ns), (last_bad_ns, back_ns) = begin, end
    lower_ns = 0 if last_bad_ns is None else max(0, min(last_bad_ns, back_ns) - first_bad_ns)
    if good_ns is None:
        return OutageBounds(lower_ns / 1e6, None)
    return OutageBounds(lower_ns / 1e6, max(lower_ns, back_ns - min(good_ns, first_bad_ns)) / 1e6)


def as_taken_over(fault: Fault, wall_ns: int, mono_ns: int) -> Fault:
    """The fault as a starting server reads it, whose clocks show this: without stamps of another machine.

    Only a node's own reports are stamped by the node; everything else is by the clock of the server that saw
    it. Stamps of the same boot are as far from the wall clock as ours are.
    """
    if fault.kind is nouns.FaultKind.RESOURCE_DOWN or fault.raised_mono_ns is None:
        return fault
    apart_ns = (fault.raised_ns - fault.raised_mono_ns) - (wall_ns - mono_ns)
    if abs(apart_ns) <= SAME_CLOCK_NS:
        return fault
    return replace(fault, raised_mono_ns=None, good_mono_ns=None, up_mono_ns=None, bad_mono_ns=None)


SAME_CLOCK_NS = 10**9
"""A leap second. Too large: an outage is wrong by as much. Too small: it has no length after a restart."""


def is_over(fault: Fault, now_ns: int) -> bool:
    """Whether a clearing fault has been right long enough on the server's own monotonic clock."""
    return (
        fault.state is FaultState.CLEARING
        and fault.hold_until_ns is not None
        and now_ns >= fault.hold_until_ns
    )


FLAPPING_KINDS = frozenset({nouns.FaultKind.RESOURCE_DOWN, nouns.FaultKind.AGENT_LOST})


def count_within(raised_ns: Sequence[int], now_ns: int, limits: FlapLimits) -> int:
    """How many of them are younger than the window."""
    if not raised_ns:
        return 0
    since_ns = now_ns - round(limits.window_s * 1e9)
    return sum(each > since_ns for each in raised_ns)


def is_flapping(kind: nouns.FaultKind, earlier: int, limits: FlapLimits) -> bool:
    """Whether a fault that was raised after `earlier` others within the window is one that flaps."""
    return limits.max > 0 and kind in FLAPPING_KINDS and earlier >= limits.max


def flapping_reason(reason: str, earlier: int, limits: FlapLimits) -> str:
    """What is told of a fault that flaps."""
    return f"{reason}; flapping: {earlier + 1} times in {limits.window_s:g} s, open until right for as long"


class Inhibition(Enum):
    """Why something wrong is not raised; the value is the sentence for `explain`."""

    HOST_DOWN = "its host is down: reported with the host"
    HOST_SETTLING = "its host came back a moment ago: reported with the host until it has settled"


SMALLER_KINDS = frozenset(
    {
        nouns.FaultKind.AGENT_LOST,
        nouns.FaultKind.RESOURCE_DOWN,
        nouns.FaultKind.WITNESS_LOST,
        nouns.FaultKind.RUNNER_SILENT,
        nouns.FaultKind.NODE_STORE_FULL,
    }
)
SUPERSEDED = "its whole host is down: reported as host_down"
"""The reason with which a smaller fault of a dead host ends."""
REMAINS = "its host is back, and not all of what ran there: what is wrong has faults of its own"
"""The reason with which the fault of a host ends while something on it is still wrong."""


def inhibition(kind: nouns.FaultKind, origin_fault: Fault | None) -> Inhibition | None:
    """Why a fault of this kind is not raised; `origin_fault` is that of the host whose node speaks of it."""
    if kind is not nouns.FaultKind.RESOURCE_DOWN or origin_fault is None:
        return None
    if origin_fault.kind is not nouns.FaultKind.HOST_DOWN:
        return None
    return Inhibition.HOST_DOWN if origin_fault.up_ns is None else Inhibition.HOST_SETTLING


def superseded(
    host: nouns.HostId, resources: Collection[nouns.ResourceId], faults: Mapping[str, Fault]
) -> Iterator[Fault]:
    """The faults that end when this host is found dead: of its node and its store, its probes, and of what
    runs there."""
    if len(resources) <= len(faults):
        there: Iterable[str] = map(nouns.resource_subject, resources)
    else:
        named = (about.partition("/") for about in faults)
        there = [
            nouns.resource_subject(nouns.ResourceId(name))
            for noun, _, name in named
            if noun == "resource" and name in resources
        ]
    subjects = (nouns.node_subject, nouns.store_subject, nouns.witness_subject, nouns.runner_subject)
    its = (subject(host) for subject in subjects)
    for about in (*its, *there):
        fault = faults.get(about)
        if fault is not None and fault.kind in SMALLER_KINDS:
            yield fault

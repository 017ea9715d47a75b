"""The timeline of one fault from the failure to its last notice, folded from the journal. Pure.

A checkpoint of which the journal has no stamp is None and says why; nothing is interpolated. Stamps are wall
clocks of the place where a thing happened. A span between two places is marked: it also holds the difference
of their clocks, so it may even be negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from homeostat.contracts.nouns import Mark
from homeostat.faults import checkpoints
from homeostat.kernel.clock import iso
from homeostat.kernel.journal import Envelope, Seq

_RAW = ("ResourceDown", "HostDown", "AgentLost")
_RAISED = "raised"
INJECTED_WITHIN_NS = 60 * 10**9
"""Somebody may have made a fault so long before its first evidence."""


_OF_A_NOTICE = (
    (
        checkpoints.CheckpointKind.NOTIFIED_VM_ERROR,
        "offered_ns",
        "the commit is known, the notices are handed over",
    ),
    (
        checkpoints.CheckpointKind.TRANSFORMED_EVENT,
        "admitted_ns",
        "this consumer's notice stands among those to be sent",
    ),
    (
        checkpoints.CheckpointKind.EVALUATED_EVENT,
        "chosen_ns",
        "it is its turn, and its consumer may still hear of it",
    ),
    (checkpoints.CheckpointKind.FIRED_ALARM, "sent_ns", "the accepted attempt began, rendered and signed"),
)


@dataclass(frozen=True, slots=True)
class _Stamp:
    at_ns: int
    clock: str
    seq: Seq
    what: str


@dataclass(slots=True)
class _EndpointStamps:
    """What the journal has of one endpoint."""

    queued: Envelope
    ended: Envelope | None = None

    @property
    def name(self) -> str:
        """The endpoint, as its notices' keys begin: `multi/2` is the second of the subscription `multi`."""
        return str(self.queued.payload["key"]).partition(":")[0]

    @property
    def received_ns(self) -> int | None:
        return self.ended.at_ns if self.ended is not None and self.ended.kind == "NoticeDelivered" else None

    def stamp(self, name: str) -> int | None:
        value = None if self.received_ns is None or self.ended is None else self.ended.payload.get(name)
        return value if isinstance(value, int) else None


@dataclass(slots=True)
class _Found:
    """The events of one fault, picked out of its chain."""

    raised: Envelope
    raw: Envelope | None = None
    cleared: Envelope | None = None
    tellings: list[_EndpointStamps] = field(default_factory=list)
    acts: list[tuple[str, Envelope]] = field(default_factory=list)
    injected: Envelope | None = None


def timeline(
    chain: Sequence[Envelope],
    fault: str,
    numbering: checkpoints.Numbering = checkpoints.Numbering.BLUEPRINT,
    consumer: str | None = None,
) -> checkpoints.Timeline | None:
    """Fold the chain. None when the fault is not in it, or when `consumer` was not to be told of it.

    The chain may also hold stamps of what was broken on purpose, which are in no chain of causes: whoever
    finds a fault is not to know of them.
    """
    found = _find(chain, fault)
    if found is None:
        return None
    chosen = _chosen(found.tellings, consumer)
    if consumer is not None and chosen is None:
        return None
    stamps = _stamps(found, chosen)
    beside = _beside(stamps)
    order = checkpoints.ORDERS[numbering]
    path = [(id, step, stamps[step]) for id, step in order if step in stamps and step not in beside]
    zero_ns = path[0][2].at_ns
    detected_ns = stamps[checkpoints.CheckpointKind.RAW_FAILURE].at_ns
    told = [_told(each, detected_ns) for each in found.tellings]
    received = sorted(each.received_ms for each in told if each.received_ms is not None)
    spans = _spans(path, [step for _, step in order])
    total_ms = _ms(path[-1][2].at_ns - zero_ns) if len(path) > 1 else None
    end = found.cleared
    superseded_by = (None if end is None else end.payload.get("superseded_by")) or None
    return checkpoints.Timeline(
        fault=fault,
        kind=str(found.raised.payload["kind"]),
        about=str(found.raised.payload["about"]),
        numbering=numbering,
        consumer=None if chosen is None else chosen.name,
        checkpoints=[_checkpoint(id, step, stamps.get(step), zero_ns, step in beside) for id, step in order],
        spans=spans,
        costs=_costs(spans, total_ms),
        told=sorted(told, key=lambda each: (each.received_ms is None, each.received_ms or 0.0)),
        first_told_ms=received[0] if received else None,
        last_told_ms=received[-1] if received else None,
        first_evidence_at=iso(_seen_ns(found.raw or found.raised)),
        waited_ms=_ms(detected_ns - _seen_ns(found.raw or found.raised)),
        resolved_ms=None if end is None or superseded_by else _since(_seen_ns(end), detected_ns),
        total_ms=total_ms,
        outage_lower_ms=None if end is None else end.payload.get("outage_lower_ms"),
        outage_upper_ms=None if end is None else end.payload.get("outage_ms"),
        superseded_by=superseded_by,
    )


def _find(chain: Sequence[Envelope], fault: str) -> _Found | None:
    by_seq = {each.seq: each for each in chain}
    about = [each for each in chain if each.payload.get("fault") == fault]
    raised = next((each for each in about if each.kind == "FaultRaised"), None)
    if raised is None:
        return None
    found = _Found(raised, _first_up(raised, by_seq, lambda each: each.kind in _RAW))
    found.cleared = next((each for each in about if each.kind == "FaultCleared"), None)
    tellings: dict[str, _EndpointStamps] = {}
    for each in about:
        if each.kind == "NoticeQueued" and each.payload.get("transition") == _RAISED:
            tellings[str(each.payload["key"])] = _EndpointStamps(each)
    for each in chain:
        if each.kind in ("NoticeDelivered", "NoticeGivenUp") and each.payload.get("key") in tellings:
            tellings[str(each.payload["key"])].ended = each
        if each.kind == "ActionFinished" and each.payload.get("outcome") == "ok" and each.cause in by_seq:
            found.acts.append((str(by_seq[each.cause].payload.get("verb", "")), each))
    found.tellings = list(tellings.values())
    found.injected = _injection(found.raw or raised, chain)
    return found


def _injection(raw: Envelope, chain: Sequence[Envelope]) -> Envelope | None:
    """The last time that somebody broke this very host, shortly before it was seen."""
    seen_ns = _seen_ns(raw)
    stamps = [
        each
        for each in chain
        if each.kind == "FaultInjected"
        and each.subject == raw.subject
        and 0 <= seen_ns - each.at_ns <= INJECTED_WITHIN_NS
    ]
    return max(stamps, key=lambda each: each.at_ns, default=None)


def _first_up(
    event: Envelope, by_seq: Mapping[Seq, Envelope], wanted: Callable[[Envelope], bool]
) -> Envelope | None:
    seen: set[Seq] = set()
    cause = event.cause
    while cause is not None and cause in by_seq and cause not in seen:
        seen.add(cause)
        if wanted(by_seq[cause]):
            return by_seq[cause]
        cause = by_seq[cause].cause
    return None


def _chosen(tellings: Sequence[_EndpointStamps], consumer: str | None) -> _EndpointStamps | None:
    if consumer is not None:
        return next((each for each in tellings if each.name == consumer), None)
    told = [each for each in tellings if each.received_ns is not None]
    return max(told, key=lambda each: each.received_ns or 0, default=None)


def _stamps(found: _Found, chosen: _EndpointStamps | None) -> dict[checkpoints.CheckpointKind, _Stamp]:
    raw = found.raw or found.raised
    # One witness of a dead host is no evidence yet: the wait for the second one is the monitor's own time.
    known_ns, what = _seen_ns(raw), "the source's stamp of what it saw first"
    if raw.kind == "HostDown":
        known_ns, what = raw.at_ns, "its node process is silent and outside probes fail"
    stamps = {
        checkpoints.CheckpointKind.RAW_FAILURE: _Stamp(known_ns, _clock(raw), raw.seq, f"{raw.kind}: {what}")
    }
    if found.injected is not None:
        _put(
            stamps,
            checkpoints.CheckpointKind.HOST_DOWN,
            found.injected,
            "FaultInjected: who broke it says when",
        )
    step = checkpoints.CheckpointKind.FOUND_AFFECTED
    if found.raw is not None and found.raw.kind == "HostDown":
        _put(stamps, step, found.raw, "HostDown: the server declares it, with who is affected")
    elif found.tellings:
        queued = found.tellings[0].queued
        _put(stamps, step, queued, "NoticeQueued: the server knows who is to be notified")
    for step, mark, what in (
        (
            checkpoints.CheckpointKind.MARKED_HOST_DOWN,
            Mark.MARK_DOWN,
            "ActionFinished: the cloud shows the host as down",
        ),
        (
            checkpoints.CheckpointKind.SET_VM_ERROR,
            Mark.SET_ERROR,
            "ActionFinished: the cloud shows what ran there in error",
        ),
    ):
        ended = [act for verb, act in found.acts if verb == mark.value]
        if ended:
            # A fault that went on over several deaths has several; its timeline is of the first.
            _put(stamps, step, min(ended, key=lambda each: each.at_ns), what)
    if chosen is None or chosen.ended is None or chosen.received_ns is None:
        return stamps
    for step, name, what in _OF_A_NOTICE:
        at_ns = chosen.stamp(name)
        if at_ns is not None:
            stamps[step] = _Stamp(at_ns, _clock(chosen.ended), chosen.ended.seq, f"NoticeDelivered: {what}")
    _received(stamps, chosen, chosen.ended)
    return stamps


def _received(
    stamps: dict[checkpoints.CheckpointKind, _Stamp], chosen: _EndpointStamps, ended: Envelope
) -> None:
    """By the consumer's own word where it gives one: our answer comes after both."""
    own = f"consumer {chosen.name}"
    received_ns, handled_ns = (chosen.stamp(f"consumer_{name}_ns") for name in ("received", "handled"))
    if received_ns is None or handled_ns is None:
        what = "NoticeDelivered: the consumer has answered 2xx"
        stamps[checkpoints.CheckpointKind.RECEIVED_ALARM] = _Stamp(
            ended.at_ns, _clock(ended), ended.seq, what
        )
        return
    for step, at_ns, what in (
        (checkpoints.CheckpointKind.RECEIVED_ALARM, received_ns, "the consumer says when it had read it"),
        (checkpoints.CheckpointKind.HANDLED_ALARM, handled_ns, "the consumer says when it was done with it"),
    ):
        stamps[step] = _Stamp(at_ns, own, ended.seq, f"NoticeDelivered: {what}")


def _put(
    stamps: dict[checkpoints.CheckpointKind, _Stamp],
    step: checkpoints.CheckpointKind,
    event: Envelope,
    what: str,
) -> None:
    stamps[step] = _Stamp(event.at_ns, _clock(event), event.seq, what)


def _seen_ns(event: Envelope) -> int:
    seen_ns = event.payload.get("seen_ns")
    return seen_ns if isinstance(seen_ns, int) and seen_ns > 0 else event.at_ns


def _clock(event: Envelope) -> str:
    """Whose clock stamped it: a node's, the injector's, or the server's under its many names."""
    return event.origin if event.origin.startswith(("node/", "injector")) else "server"


def _beside(stamps: Mapping[checkpoints.CheckpointKind, _Stamp]) -> frozenset[checkpoints.CheckpointKind]:
    later = [
        stamps[step].at_ns for step in stamps if step.number > checkpoints.CheckpointKind.SET_VM_ERROR.number
    ]
    return frozenset(
        step for step in checkpoints.BESIDE if step in stamps and later and stamps[step].at_ns > min(later)
    )


def _checkpoint(
    id: str, step: checkpoints.CheckpointKind, stamp: _Stamp | None, zero_ns: int, beside: bool
) -> checkpoints.Checkpoint:
    if stamp is None:
        missing = step.why_missing
        return checkpoints.Checkpoint(
            id=id, name=step.label, at=None, ms=None, clock=None, event=None, what=missing
        )
    return checkpoints.Checkpoint(
        id=id,
        name=step.label,
        at=iso(stamp.at_ns),
        ms=_ms(stamp.at_ns - zero_ns),
        clock=stamp.clock,
        event=stamp.seq,
        what=stamp.what,
        beside=beside,
    )


def _spans(
    path: Sequence[tuple[str, checkpoints.CheckpointKind, _Stamp]],
    order: Sequence[checkpoints.CheckpointKind],
) -> list[checkpoints.CheckpointSpan]:
    spans = []
    for (begin, first, left), (end, last, right) in pairwise(path):
        passed = order[order.index(first) + 1 : order.index(last) + 1]
        spans.append(
            checkpoints.CheckpointSpan(
                begin=begin,
                end=end,
                ms=_ms(right.at_ns - left.at_ns),
                bands=list(dict.fromkeys(step.band for step in passed)),
                clocks_differ=left.clock != right.clock,
            )
        )
    return spans


def _costs(spans: Sequence[checkpoints.CheckpointSpan], total_ms: float | None) -> list[checkpoints.Cost]:
    sums: dict[tuple[str, ...], float] = {}
    for span in spans:
        sums[tuple(span.bands)] = sums.get(tuple(span.bands), 0.0) + span.ms
    costs = [
        checkpoints.Cost(
            component=" + ".join(bands),
            alias=" + ".join(checkpoints.ALIASES[band] for band in bands),
            ms=round(ms, 3),
            percent=round(100 * ms / total_ms, 1) if total_ms else 0.0,
        )
        for bands, ms in sums.items()
    ]
    return sorted(costs, key=lambda cost: -cost.ms)


def _told(telling: _EndpointStamps, detected_ns: int) -> checkpoints.ConsumerDelays:
    ended = telling.ended
    waiting = "waiting" if ended is None else "told" if ended.kind == "NoticeDelivered" else "given up"
    payload = {} if ended is None else ended.payload
    return checkpoints.ConsumerDelays(
        subscription=telling.name,
        state=waiting,
        handed_over_ms=_since(telling.stamp("offered_ns"), detected_ns),
        fired_ms=_since(telling.stamp("sent_ns"), detected_ns),
        received_ms=_since(telling.received_ns, detected_ns),
        handled_ms=_since(telling.stamp("consumer_handled_ns"), detected_ns),
        attempts=int(payload.get("attempts", 0)),
        reason=str(payload.get("reason", "")),
    )


def _since(at_ns: int | None, zero_ns: int) -> float | None:
    return None if at_ns is None else _ms(at_ns - zero_ns)


def _ms(span_ns: int) -> float:
    return round(span_ns / 1e6, 3)

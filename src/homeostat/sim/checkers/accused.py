"""A host is accused by two witnesses, never with most others at once, and once for each death.

The witnesses' words are the simulated world's own log: what came in from the host's agent, and how the probes
ended. In the journal alone: once until it is back, and never more than half of those that lived.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator

from homeostat.contracts.events.fleet import AgentReturned, HostBack, HostDown, HostJoined
from homeostat.contracts.nouns import HostId, node_subject
from homeostat.fleet.settings import FleetSettings
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation, committed_at

NAME = "a host is accused by two witnesses, once a death"
_DECIDED_S = 0.02
"""A commit comes at most this long after what was decided."""


def check(evidence: Evidence) -> Iterator[Violation]:
    """The journal in its order; in a story the witnesses of each accusation."""
    committed = committed_at(evidence)
    living: set[HostId] = set()
    at_once: Counter[int] = Counter()
    lived: dict[int, int] = defaultdict(int)
    for envelope in evidence.record.events:
        match envelope.event:
            case HostJoined(host=host) | HostBack(host=host):
                living.add(host)
            case HostDown(host=host):
                if host not in living:
                    said = f"event {envelope.seq} says that it is down, and it was known to be"
                    yield Violation(NAME, node_subject(host), said)
                if envelope.seq in committed and evidence.fleet is not None:
                    when = committed[envelope.seq]
                    yield from _witnesses(evidence, evidence.fleet, (host, when), frozenset(living))
                at_once[envelope.at_ns] += 1
                lived[envelope.at_ns] = max(lived[envelope.at_ns], len(living))
                living.discard(host)
            case _:
                pass
    for at_ns, count in at_once.items():
        if count * 2 > lived[at_ns]:
            said = f"{count} of {lived[at_ns]} hosts were accused in one moment"
            yield Violation(NAME, "fleet", said)


def _witnesses(
    evidence: Evidence,
    fleet: FleetSettings,
    accused: tuple[HostId, tuple[float, str]],
    living: frozenset[HostId],
) -> Iterator[Violation]:
    assert evidence.story is not None
    host, (at_s, server) = accused
    told = evidence.story.witnesses
    decided_s, since_s = at_s - _DECIDED_S, at_s - fleet.host_silent_after_s
    heard = told.heard.get((server, host), [])
    if (place := bisect_right(heard, since_s)) < bisect_left(heard, decided_s):
        said = f"{server} accuses it at {at_s:.3f} s and heard its agent at {heard[place]:.3f} s"
        yield Violation(NAME, node_subject(host), said)
    if not _fails(told, server, host, decided_s, fleet.probe_failures):
        said = f"{server} accuses it at {at_s:.3f} s and its probes were answered, or there were none"
        yield Violation(NAME, node_subject(host), said)
    expected = living - _gone(evidence, evidence.story, at_s)
    unseen = [each for each in expected if _fails(told, server, each, decided_s, 1)]
    if len(unseen) * 2 > len(living) and len(unseen) > 1:
        said = f"accused at {at_s:.3f} s, when {len(unseen)} of {len(living)} hosts did not answer"
        yield Violation(NAME, node_subject(host), said)


def _gone(evidence: Evidence, told: story.Story, at_s: float) -> set[HostId]:
    """Whose node process had said goodbye, and no other one of it was taken note of since."""
    left_s = {each.host: left_s for left_s, each in told.of(story.Left) if left_s <= at_s}
    committed = committed_at(evidence)
    for envelope in evidence.record.events:
        match envelope.event:
            case AgentReturned(host=host) | HostBack(host=host):
                if left_s.get(host, at_s) < committed[envelope.seq][0] <= at_s:
                    del left_s[host]
            case _:
                pass
    return set(left_s)


def _fails(told: story.Witnesses, server: str, host: HostId, at_s: float, times: int) -> bool:
    """Whether that many probes in a row had failed by then; one that ends in the next moment may count."""
    ended = told.probed.get((server, host), [])
    known = [answered for ended_s, answered in ended if ended_s <= at_s]
    late = [answered for ended_s, answered in ended if at_s < ended_s <= at_s + _DECIDED_S]
    last = (known if times == 1 else [*known, *(each for each in late if not each)])[-times:]
    return len(last) == times and not any(last) and not (times == 1 and any(late))

"""I5: no guest is started elsewhere before the receipt that nothing runs on its host any more.

With a story: before its host was really off.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.events.fleet import HostBack, HostDown, HostFenced
from homeostat.contracts.events.resources import GuestMoved
from homeostat.contracts.nouns import HostId, ResourceId, resource_subject
from homeostat.kernel.journal import Seq
from homeostat.sim import story
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I5 no evacuation before the fencing receipt"


def check(evidence: Evidence) -> Iterator[Violation]:
    """The host is fenced at that moment, its receipt is the cause, and a receipt moves a guest once."""
    if evidence.story is not None:
        yield from _starts(evidence.story)
    receipts: dict[HostId, Seq] = {}
    used: set[tuple[str, Seq]] = set()
    for envelope in evidence.record.events:
        match envelope.event:
            case HostFenced(host=host):
                receipts[host] = envelope.seq
            case HostDown(host=host) | HostBack(host=host):
                receipts.pop(host, None)
            case GuestMoved(resource=resource, from_host=host):
                receipt = receipts.get(host)
                if receipt is None:
                    said = f"event {envelope.seq} moves it from {host}, which is not fenced"
                    yield Violation(NAME, envelope.subject, said)
                elif envelope.cause != receipt:
                    said = (
                        f"event {envelope.seq} moves it because of {envelope.cause}, not of receipt {receipt}"
                    )
                    yield Violation(NAME, envelope.subject, said)
                elif (resource, receipt) in used:
                    said = f"event {envelope.seq} moves it a second time after receipt {receipt}"
                    yield Violation(NAME, envelope.subject, said)
                if receipt is not None:
                    used.add((resource, receipt))
            case _:
                pass


def _starts(told: story.Story) -> Iterator[Violation]:
    """Between what a host did for a guest last and its start elsewhere, that host was off."""
    last: dict[ResourceId, HostId] = {}
    for line in told.lines:
        match line.fact:
            case story.HostDied(host=host):
                last = {guest: where for guest, where in last.items() if where != host}
            case story.ActBegan(resource=guest, host=host, verb="start") if guest in told.guests:
                before = last.get(guest, host)
                if before != host:
                    said = f"its start on {host} begins at {line.at_s:.3f} s; {before} has not been off since"
                    yield Violation(NAME, resource_subject(guest), said)
                last[guest] = host
            case story.GuestRuns(guest=guest, host=host):
                last[guest] = host
            case _:
                pass

"""I5: no guest is started elsewhere before the receipt that nothing runs on its host any more."""

from __future__ import annotations

from collections.abc import Iterator

from homeostat.contracts.events.fleet import HostBack, HostDown, HostFenced
from homeostat.contracts.events.resources import GuestMoved
from homeostat.contracts.nouns import HostId
from homeostat.kernel.journal import Seq
from homeostat.sim.checkers.evidence import Evidence, Violation

NAME = "I5 no evacuation before the fencing receipt"


def check(evidence: Evidence) -> Iterator[Violation]:
    """The host is fenced at that moment, its receipt is the cause, and a receipt moves a guest once."""
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

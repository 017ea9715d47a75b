"""Chains of a fault as a journal has them, with every moment given in milliseconds."""

from __future__ import annotations

from typing import Any

from homeostat.kernel.journal import Envelope, Seq

MS = 1_000_000
START = 1_700_000_000_000 * MS
FAULT = "f-0123456789ab"


class Chain:
    """Events one after the other; each method returns the number of the event."""

    def __init__(self) -> None:
        self.events: list[Envelope] = []

    def add(self, event: str, at_ms: float, cause: int | None = None, /, **payload: Any) -> int:
        origin = payload.pop("origin", "server")
        seq = Seq(len(self.events) + 1)
        at_ns = START + round(at_ms * MS)
        where = None if cause is None else Seq(cause)
        self.events.append(Envelope(seq, event, 1, "s", where, "t", at_ns, origin, payload, None))
        return seq

    def raised(self, raw: str, seen_ms: float, at_ms: float, kind: str = "host_down") -> int:
        """The evidence of a source and the fault that it makes."""
        seen_ns = START + round(seen_ms * MS)
        origin = "server" if raw == "HostDown" else "node/n2"
        cause = self.add(raw, at_ms, seen_ns=seen_ns, host="n2", origin=origin)
        return self.add(
            "FaultRaised", seen_ms, cause, fault=FAULT, kind=kind, about="node/n2", seen_ns=seen_ns
        )

    def queued(self, raised: int, name: str, at_ms: float, transition: str = "raised") -> int:
        key = f"{name}:{FAULT}:{transition}"
        return self.add(
            "NoticeQueued", at_ms, raised, key=key, subscription=name, fault=FAULT, transition=transition
        )

    def delivered(
        self,
        queued: int,
        offered_ms: float | None,
        sent_ms: float | None,
        answered_ms: float,
        attempts: int = 1,
        **more_ms: float,
    ) -> int:
        """`more_ms`: further stamps of the notice, by their names without `_ns`."""
        notice = self.events[queued - 1].payload
        stamps = {
            name: None if value is None else START + round(value * MS)
            for name, value in (
                ("offered_ns", offered_ms),
                ("sent_ns", sent_ms),
                *((f"{name}_ns", value) for name, value in more_ms.items()),
            )
        }
        more = {"key": notice["key"], "subscription": notice["subscription"], "attempts": attempts}
        return self.add("NoticeDelivered", answered_ms, queued, **more, **stamps)

    def act(self, cause: int, verb: str, begun_ms: float, ended_ms: float, outcome: str = "ok") -> int:
        intended = self.add("ActionIntended", begun_ms, cause, action=verb, verb=verb)
        return self.add("ActionFinished", ended_ms, intended, action=verb, outcome=outcome)


def host_down(*, marked_ms: float = 11, errors_ms: float = 14) -> Chain:
    """The whole story of a dead host with two consumers, the second of which answers late."""
    chain = Chain()
    raised = chain.raised("HostDown", seen_ms=-900, at_ms=0)
    first = chain.queued(raised, "blue", 8)
    second = chain.queued(raised, "green", 8)
    chain.act(raised, "mark_down", 9, marked_ms)
    chain.act(raised, "set_error", 9, errors_ms)
    chain.delivered(first, 15, 15.5, 18)
    chain.delivered(second, 15, 16, 20, attempts=2)
    cleared = chain.add(
        "FaultCleared", 900, raised, fault=FAULT, about="node/n2", seen_ns=START + 900 * MS, outage_ms=None
    )
    late = chain.queued(cleared, "blue", 901, "cleared")
    chain.delivered(late, 902, 903, 904)
    return chain

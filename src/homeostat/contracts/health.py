"""The health of a server: its signs, and what they leave to be known now. Pure.

Every view reads it, and nothing else decides it.

A server that cannot write has not recorded what its nodes say, and one that cannot hear does not know what
they would say: of both only what was known last can be shown, and that is `unknown` now. Invariant: while
something is wrong no set point is *kept*, no host and no resource is *up*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from homeostat.contracts.nouns import SetPoint, SetPointState


class Impairment(StrEnum):
    """Why a server cannot write or hear: the label `reason` in /metrics."""

    STORE_FULL = "store_full"
    STORE_UNAVAILABLE = "store_unavailable"
    TERM_IN_DOUBT = "term_in_doubt"
    NATS_DOWN = "nats_down"
    NO_NODE_HEARD = "no_node_heard"
    EVIDENCE_LOST = "evidence_lost"


WRITING = frozenset({Impairment.STORE_FULL, Impairment.STORE_UNAVAILABLE, Impairment.TERM_IN_DOUBT})
"""Those with which nothing is recorded; with the others nothing is heard, or it is not believed."""


@dataclass(frozen=True, slots=True)
class ServerSigns:
    """What a server sees of itself. A text says what is wrong in one line and is empty while nothing is.

    `store_full` and `store_unavailable` are why the writer cannot commit, `term` why the leadership is in
    doubt, `evidence` why nothing may be concluded from silence. `expected` nodes should speak, `heard` of
    them did lately.
    """

    store_full: str = ""
    store_unavailable: str = ""
    term: str = ""
    connected: bool = True
    expected: int = 0
    heard: int = 0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """Everything that is wrong with a server, the worst first; empty while it can write and hear."""

    impairments: tuple[tuple[Impairment, str], ...] = ()

    @property
    def reason(self) -> str:
        """One line; empty while all is well."""
        return "; ".join(text for _, text in self.impairments)

    @property
    def can_write(self) -> bool:
        return not any(each in WRITING for each, _ in self.impairments)

    @property
    def can_hear(self) -> bool:
        return all(each in WRITING for each, _ in self.impairments)

    @property
    def warning(self) -> str:
        """One line for whoever reads anything that this server says; empty while all is well."""
        if not self.impairments:
            return ""
        verbs = [verb for verb, can in (("write", self.can_write), ("hear", self.can_hear)) if not can]
        return f"the server cannot {' or '.join(verbs)}: {self.reason}; what it shows may be old"


HealthSource = Callable[[], ServerHealth]
"""The health of this server now."""


def judge_health(signs: ServerSigns) -> ServerHealth:
    """What these signs amount to."""
    silent = "" if not signs.expected or signs.heard else _nobody(signs.expected)
    found = (
        (Impairment.STORE_FULL, signs.store_full),
        (Impairment.STORE_UNAVAILABLE, signs.store_unavailable),
        (Impairment.TERM_IN_DOUBT, signs.term),
        (Impairment.NATS_DOWN, "" if signs.connected else _NOT_CONNECTED),
        # Without NATS nobody is heard and nothing is evidence: said once.
        (Impairment.NO_NODE_HEARD, silent if signs.connected else ""),
        (Impairment.EVIDENCE_LOST, signs.evidence if signs.connected and not silent else ""),
    )
    return ServerHealth(tuple((each, text) for each, text in found if text))


_NOT_CONNECTED = "NATS is not connected: nothing is heard from the nodes"


def _nobody(expected: int) -> str:
    return (
        "the one node that should report is not heard"
        if expected == 1
        else f"none of the {expected} nodes that should report is heard"
    )


def known_set_points(rows: Iterable[SetPoint], health: ServerHealth) -> list[SetPoint]:
    """The same rows as far as they are known now. What was broken stays so; its value is the last known."""
    return [row if _is_known(row, health) else _last_known(row, health) for row in rows]


def overall_state(rows: Sequence[SetPoint], health: ServerHealth) -> SetPointState:
    """Of all set points together: *kept* only when each is, and the server can write and hear."""
    states = {row.standing for row in rows}
    if SetPointState.BROKEN in states:
        return SetPointState.BROKEN
    if health.impairments or states != {SetPointState.KEPT}:
        return SetPointState.UNKNOWN
    return SetPointState.KEPT


def _is_known(row: SetPoint, health: ServerHealth) -> bool:
    return health.can_write and (health.can_hear or not row.needs_nodes)


def _last_known(row: SetPoint, health: ServerHealth) -> SetPoint:
    if row.standing is SetPointState.BROKEN:
        return replace(row, value=None, detail=f"last known: {row.detail or 'broken'}; {health.reason}")
    return replace(row, value=None, standing=SetPointState.UNKNOWN, detail=health.reason)

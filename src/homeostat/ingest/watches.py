"""The memory of the write path that no row has: when node processes were heard, and guests of dead hosts.
Pure.

It is of one process only: a server that starts knows nothing of it, and bounds that rest on it are unknown
then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homeostat.contracts.nouns import Owner, ResourceId


@dataclass(frozen=True, slots=True)
class AgentLife:
    """When a node process was heard last by this server, on its monotonic clock.

    `before_ns` is when the one before it on the same host was, None: never by this server.
    """

    incarnation: str
    last_ns: int
    before_ns: int | None = None

    @classmethod
    def heard(cls, known: AgentLife | None, incarnation: str, now_ns: int) -> AgentLife:
        """The same with one more heartbeat."""
        if known is None:
            return cls(incarnation, now_ns)
        same = known.incarnation == incarnation
        return cls(incarnation, now_ns, known.before_ns if same else known.last_ns)


@dataclass(slots=True)
class GuestWatch:
    """The guests of one dead host that can run elsewhere, between two looks.

    `up` are those that are right there and were not told yet: since when by their host's wall clock, and when
    this server saw it. `moved_ns` is when each was first seen assigned elsewhere and not up, `awaited` are
    the projects that miss one, `looked` the number of the change of guests that was looked at last.
    """

    up: dict[ResourceId, tuple[int, int]] = field(default_factory=dict)
    moved_ns: dict[ResourceId, int] = field(default_factory=dict)
    awaited: set[Owner] = field(default_factory=set)
    looked: int = -1

"""The memory of the write path that no row has: when node processes were heard and what they had seen, and
guests of dead hosts. Pure.

All times are of the server's monotonic clock. What a node saw is stamped by its own, which is as far from
ours as its quickest message says: each is received later than it was sent, so that a moment is taken for
later than it was by no more than that message was on its way. It is of one process only: a server that starts
knows nothing of it, and bounds that rest on it are unknown then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homeostat.contracts.nouns import Owner, ResourceId, ResourceState
from homeostat.contracts.wire import Heartbeat

DRIFT = 1e-4
"""Two machines' clocks run apart by less than a tenth of a second in a quarter of an hour, so that an old
message says so much less of them. Smaller: a clock that is worse makes bounds wrong."""


@dataclass(frozen=True, slots=True)
class AgentLife:
    """When a node process was heard last by this server.

    `before_ns` is when the one before it on the same host was, None: never by this server. `offset_ns` is
    how far our clock is before the node's, at most. `looked_ns` is when the runner of the host last looked at
    everything, of this incarnation or an earlier one, `seen_ns` when it had last seen all guests that its
    node has as up; None: not known. `says_looked`: this node says such things.
    """

    incarnation: str
    last_ns: int
    before_ns: int | None = None
    offset_ns: int | None = None
    looked_ns: int | None = None
    seen_ns: int | None = None
    says_looked: bool = False

    @classmethod
    def heard(cls, known: AgentLife | None, beat: Heartbeat, now_ns: int) -> AgentLife:
        """The same with one more heartbeat."""
        before_ns, offset_ns, looked_ns = None, None, None
        if known is not None:
            same = known.incarnation == beat.incarnation
            before_ns = known.before_ns if same else known.last_ns
            looked_ns = known.looked_ns
            if same and known.offset_ns is not None:
                offset_ns = known.offset_ns + round((now_ns - known.last_ns) * DRIFT)
        if beat.sent_mono_ns:
            apart_ns = now_ns - beat.sent_mono_ns
            offset_ns = apart_ns if offset_ns is None else min(offset_ns, apart_ns)
        if beat.looked and not beat.looked_mono_ns:
            looked_ns = now_ns  # there is no runner to wait for
        elif beat.looked_mono_ns and offset_ns is not None:
            looked_ns = beat.looked_mono_ns + offset_ns
        seen_ns = beat.seen_mono_ns + offset_ns if beat.seen_mono_ns and offset_ns is not None else None
        says = beat.looked is not None
        return cls(beat.incarnation, now_ns, before_ns, offset_ns, looked_ns, seen_ns, says)


@dataclass(frozen=True, slots=True)
class GuestMoments:
    """When a guest was last right before it went wrong (`good_ns`), when it was last wrong before it came
    right (`bad_ns`), and when it was seen to be right (`back_ns`). None: not known."""

    good_ns: int | None = None
    bad_ns: int | None = None
    back_ns: int | None = None

    def after(
        self, state: ResourceState, was: ResourceState | None, at: tuple[int, int | None]
    ) -> GuestMoments:
        """The same with a report of its state; `at`: when that was seen, and when it was last otherwise."""
        at_ns, before_ns = at
        if state is ResourceState.UP:
            return GuestMoments(None, before_ns, at_ns)
        is_wrong = state in (ResourceState.DOWN, ResourceState.FAILED)
        return GuestMoments(before_ns) if is_wrong and was is ResourceState.UP else GuestMoments(self.good_ns)


@dataclass(slots=True)
class GuestWatch:
    """The guests of one dead host that can run elsewhere, between two looks.

    `good_ns` is when each was last right on the dead host, as far as is known; `fenced_ns` when nothing ran
    there any more. `up` are those that are right elsewhere and were not told yet: since when by their host's
    wall clock, and when this server saw it. `moved_ns` is when each was first seen assigned elsewhere and not
    up, `awaited` are the projects that miss one, `looked` the number of the change of guests that was looked
    at last.
    """

    good_ns: dict[ResourceId, int] = field(default_factory=dict)
    fenced_ns: int | None = None

    up: dict[ResourceId, tuple[int, int]] = field(default_factory=dict)
    moved_ns: dict[ResourceId, int] = field(default_factory=dict)
    awaited: set[Owner] = field(default_factory=set)
    looked: int = -1

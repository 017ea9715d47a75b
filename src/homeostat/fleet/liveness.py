"""Who is silent, and whether silence means anything. Pure: times are passed in.

A silent node process is `agent_lost`, never a dead host. Doubt yourself first: while our own link is down, or
when more than half of the nodes fall silent together, everything is unknown and nobody is accused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeostat.contracts.nouns import HostId


@dataclass(frozen=True, slots=True)
class Link:
    """The server's own connection. `since_ns` is when it last came up (or the server started listening).

    `doubted_ns` is the last moment at which nothing could be concluded: nobody is accused of a silence
    before it, so that the end of a doubt is not the beginning of a storm.
    """

    connected: bool
    since_ns: int
    doubted_ns: int = 0


@dataclass(frozen=True, slots=True)
class Assessment:
    """`silent` maps a host to its seconds of silence; `doubt` says why nothing may be concluded."""

    silent: Mapping[HostId, float]
    doubt: str = ""


QUORUM_MIN = 3
"""Below three nodes, "more than half" is one node, and one silent node says nothing about our own link."""


def assess(
    heard_ns: Mapping[HostId, int], link: Link, now_ns: int, *, lost_after_s: float, own_lag_s: float = 0.0
) -> Assessment:
    """Which of the nodes that should be present are silent, on one monotonic clock.

    `heard_ns` holds every node that is expected to speak, and when it last did. `own_lag_s` is how late our
    own loop was in the last window: it widens the patience, since a late listener hears late.
    """
    if not link.connected:
        return Assessment({}, "the server's own link to NATS is down")
    patience_s = lost_after_s + own_lag_s
    silence_s = {host: (now_ns - max(heard, link.since_ns)) / 1e9 for host, heard in heard_ns.items()}
    silent = {host: seconds for host, seconds in silence_s.items() if seconds > patience_s}
    # Nodes that fell silent together cross the limit one after the other, by the phase of their heartbeats:
    # count whoever is halfway there, or the first half is accused before the whole is seen.
    quiet = sum(seconds > patience_s / 2 for seconds in silence_s.values())
    if silent and len(heard_ns) >= QUORUM_MIN and quiet * 2 > len(heard_ns):
        return Assessment(
            {}, f"{quiet} of {len(heard_ns)} nodes are silent at once: the monitor is suspected first"
        )
    since_doubt_s = (now_ns - link.doubted_ns) / 1e9
    return Assessment(silent if since_doubt_s > patience_s else {})

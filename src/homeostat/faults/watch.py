"""The watch over nodes and their hosts: a sweep gathers evidence, has it judged, writes the judgement.

The judging is `fleet.suspicion`, which is pure; what a silence or a death means for guests and people is the
entry's. Invariants: while nothing may be concluded nobody is accused, and a doubt that lasts is itself
written down; what comes in while we are not connected, or late ourselves, is no evidence against anybody.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeostat.contracts.nouns import HostId
from homeostat.faults.entry import Entry
from homeostat.faults.hearing import Hearing
from homeostat.faults.parts import Parts
from homeostat.fleet.liveness import Link
from homeostat.fleet.model import AgentState
from homeostat.fleet.suspicion import Evidence, Judgement, Limits, judge


class Watch:
    """`doubt` is why nothing may be concluded now, or empty; `doubts` and `suspected` as in `Judgement`."""

    def __init__(self, parts: Parts, hearing: Hearing) -> None:
        self._parts, self._hearing = parts, hearing
        self.doubt = "no node has been heard yet"
        self.doubts: Mapping[HostId, str] = {}
        self.suspected: Mapping[HostId, int] = {}
        self._began_ns = parts.clock.mono_ns()
        self._doubted_ns = 0
        self._doubt_began_ns: int | None = None

    def sweep(self, entry: Entry) -> None:
        """Judge everybody who should be there, and write down what is new."""
        fleet, hearing = self._parts.fleet, self._hearing
        if not hearing.connected:
            hearing.since_ns = entry.mono_ns
        probed = self._parts.probed()
        evidence = {
            node.host: Evidence(
                hearing.at_ns.get(node.host, 0),
                probed.get(node.host),
                agent_lost=node.agent is AgentState.LOST,
                down=node.down_ns is not None,
            )
            for node in entry.expected()
        }
        judgement = judge(
            evidence,
            Link(hearing.connected, hearing.since_ns, self._doubted_ns),
            entry.mono_ns,
            Limits(
                fleet.lost_after_s, fleet.host_silent_after_s, fleet.probe_failures, self._parts.probe_stale_s
            ),
            self._parts.own_lag_s(),
        )
        self._adopt(entry, judgement)

    def note_unheard(self, entry: Entry) -> None:
        """Let the topology know which living nodes have not been heard lately, accused or not."""
        silent_ns = entry.mono_ns - round((self._parts.fleet.lost_after_s + self._parts.own_lag_s()) * 1e9)
        entry.world.topology.unheard = frozenset(
            node.host
            for node in entry.expected()
            if node.down_ns is None and self._hearing.at_ns.get(node.host, self._began_ns) < silent_ns
        )

    def _adopt(self, entry: Entry, judgement: Judgement) -> None:
        """Write down who is newly lost or dead, and a doubt that lasts."""
        self.doubt, self.doubts = judgement.unknown, judgement.doubts
        self.suspected = judgement.suspected
        if judgement.unknown:
            self._doubted_ns = entry.mono_ns
            began_ns = self._doubt_began_ns = self._doubt_began_ns or entry.mono_ns
            if entry.mono_ns - began_ns > self._parts.fleet.lost_after_s * 1e9:
                entry.evidence(judgement.unknown)
            return
        self._doubt_began_ns = None
        entry.evidence("")
        for host, death in judgement.dead.items():
            entry.host_down(host, death)
        for host, silent_s in judgement.silent.items():
            entry.silence(host, silent_s)

"""Decides which node processes are silent, which hosts are dead, and when nobody can know. Pure.

Evidence and times are passed in.

Doubt yourself first (after memberlist's Lifeguard). A silent node process is `agent_lost`, never a dead
host. A host is accused only when two independent witnesses agree: its agent is silent *and* probes from
outside fail. Failing probes alone are a stated doubt. While our own link is down, our own loop is late, or
more than half of the hosts miss any of their evidence at once, everything is unknown and nobody is accused.

The witnesses are two because each may be wrong. When one of them has been gone for long while the other one
spoke, the other one is alone, and its silence needs a patience of its own before it accuses: a network that
lost the probes and a pause of the agent are two small troubles and no death. That the probes are lost while
the agent speaks is itself told.

Invariant: of the hosts that were not known to be down before, never more than half are accused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from homeostat.contracts.nouns import HostId


@dataclass(frozen=True, slots=True)
class ServerLink:
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
    heard_ns: Mapping[HostId, int],
    link: ServerLink,
    now_ns: int,
    *,
    lost_after_s: float,
    own_lag_s: float = 0.0,
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
            {}, f"{quiet} of {len(heard_ns)} nodes are silent at once: Homeostat itself may be cut off"
        )
    since_doubt_s = (now_ns - link.doubted_ns) / 1e9
    return Assessment(silent if since_doubt_s > patience_s else {})


@dataclass(frozen=True, slots=True)
class Probed:
    """What outside probes of one host say. `failures` and `answers` count results of one kind in a row.

    `first_failed_ns` (wall) and `first_failed_mono_ns` are when the failures began, 0 while it answers.
    `at_mono_ns` is the latest result: an old one is no evidence; `answered_mono_ns` the latest answer, 0 when
    there was none.
    """

    at_mono_ns: int
    failures: int = 0
    answers: int = 0
    reason: str = ""
    first_failed_ns: int = 0
    first_failed_mono_ns: int = 0
    answered_mono_ns: int = 0


class LoneWitness(StrEnum):
    """The witness of a host that is left when the other one has been gone for long."""

    AGENT = "agent alone"
    PROBES = "probes alone"


@dataclass(frozen=True, slots=True)
class HostEvidence:
    """What is known of one host that has joined.

    `heard_ns` is when its agent last spoke (0: never to this server). `agent_lost`: its silence is known
    already. `stopped`: it said goodbye, so that its silence is expected. `down`: it is known to be dead.
    `probed` is None where nothing probes it, `to_be_probed` whether the settings say that it is.
    `spoke_since_ns` is when its agent began to speak as it last did, without a break. `probes_lost`: it is
    known that outside probes do not reach it.
    """

    heard_ns: int
    probed: Probed | None
    agent_lost: bool = False
    down: bool = False
    stopped: bool = False
    to_be_probed: bool = False
    spoke_since_ns: int = 0
    probes_lost: bool = False

    @property
    def silence_is_known(self) -> bool:
        return self.agent_lost or self.stopped


@dataclass(frozen=True, slots=True)
class SuspicionLimits:
    """Seconds but for `probe_failures`. `probe_stale_s`: a result older than this is none.

    `lone_witness_s`: the patience with a witness that is alone.
    """

    lost_after_s: float
    silent_after_s: float
    probe_failures: int
    probe_stale_s: float
    lone_witness_s: float = 15.0

    @property
    def gone_after_s(self) -> float:
        """How long one witness speaks and the other does not before it is alone.

        Two that fall silent together differ by a heartbeat, and by a probe that is on its way.
        """
        return max(self.lost_after_s, 2 * self.silent_after_s)


@dataclass(frozen=True, slots=True)
class Death:
    """Why a host is accused, and when its death was first seen: the first failure after its agent spoke last.

    `good_mono_ns` is when that was, 0 when nobody knows.
    """

    reason: str
    first_failed_ns: int
    first_failed_mono_ns: int
    good_mono_ns: int = 0

    @classmethod
    def seen(cls, reason: str, probed: Probed, heard_ns: int) -> Death:
        """As both witnesses saw it. A probe that failed while the agent still spoke is no evidence."""
        late_ns = probed.at_mono_ns - probed.first_failed_mono_ns
        if probed.first_failed_mono_ns >= heard_ns or late_ns < 0:
            return cls(reason, probed.first_failed_ns, probed.first_failed_mono_ns, heard_ns)
        return cls(reason, probed.first_failed_ns + late_ns, probed.at_mono_ns, heard_ns)


@dataclass(frozen=True, slots=True)
class SuspicionOutcome:
    """`unknown` is why nothing may be concluded, empty when something may; then nobody is accused.

    `silent` are agents that are newly lost, `dead` hosts that are newly dead. `doubts` says of single hosts
    what does not fit together. `suspected` are hosts that are not dead and do not answer from outside now,
    and since when (wall): they may be about to be accused. `alone` is the one witness that is left, of hosts
    that live; `unprobed` says why probes are lost of hosts whose agent speaks.
    """

    unknown: str = ""
    silent: Mapping[HostId, float] = field(default_factory=dict)
    dead: Mapping[HostId, Death] = field(default_factory=dict)
    doubts: Mapping[HostId, str] = field(default_factory=dict)
    suspected: Mapping[HostId, int] = field(default_factory=dict)
    alone: Mapping[HostId, LoneWitness] = field(default_factory=dict)
    unprobed: Mapping[HostId, str] = field(default_factory=dict)


def judge(
    hosts: Mapping[HostId, HostEvidence],
    link: ServerLink,
    now_ns: int,
    limits: SuspicionLimits,
    own_lag_s: float = 0.0,
) -> SuspicionOutcome:
    """What all the evidence amounts to, on one monotonic clock.

    A goodbye explains the silence of an agent. It is neither a death nor an alibi: outside probes that fail
    from then on mean what they mean after any silence.
    """
    agents = assess(
        {host: each.heard_ns for host, each in hosts.items() if not (each.silence_is_known or each.down)},
        link,
        now_ns,
        lost_after_s=limits.lost_after_s,
        own_lag_s=own_lag_s,
    )
    if agents.doubt:
        return SuspicionOutcome(agents.doubt)
    if own_lag_s > limits.lost_after_s:
        return SuspicionOutcome(
            f"the server's own loop was {own_lag_s:.1f} s late: what looks silent may not be"
        )
    # Who cannot be seen to vanish would only make a part of the others look smaller.
    living = {
        host: each
        for host, each in hosts.items()
        if not each.down and (each.probed is not None or not (each.agent_lost or each.stopped))
    }
    fresh = {host: _fresh(each.probed, now_ns, limits, own_lag_s) for host, each in hosts.items()}
    patience_s = limits.silent_after_s + own_lag_s
    silence_s = {host: (now_ns - max(each.heard_ns, link.since_ns)) / 1e9 for host, each in living.items()}
    # Almost all hosts are well, and all are looked at ten times a second.
    unwell = {
        host: each
        for host, each in living.items()
        if (probed := fresh[host]) is None
        or probed.failures
        or silence_s[host] > patience_s
        or each.agent_lost
        or each.stopped
    }
    # A silence that is known already says nothing about now, of an agent or of the probes of one that speaks;
    # a probe that fails once does.
    missing = [
        host
        for host, each in unwell.items()
        if (silence_s[host] > patience_s and not each.silence_is_known)
        or (_failing(fresh[host], 1) and not (each.probes_lost and silence_s[host] <= patience_s))
    ]
    unknown = _too_many(missing, living, fresh, silence_s, (patience_s, limits.probe_failures))
    if unknown:
        return SuspicionOutcome(unknown)
    sight = _Sight(link, now_ns, limits, own_lag_s, silence_s, fresh)
    alone = {host: left for host, each in unwell.items() if (left := sight.left_alone(each)) is not None}
    dead, doubts = sight.accuse(unwell, alone)
    for host, each in hosts.items():
        if each.down and (probed := fresh[host]) is not None and probed.answers >= limits.probe_failures:
            doubts[host] = "outside probes answer again; it is back when its node process reports"
    silent = {host: seconds for host, seconds in agents.silent.items() if host not in dead}
    suspected = {
        host: probed.first_failed_ns
        for host in unwell
        if host not in dead and (probed := fresh[host]) is not None and probed.failures
    }
    return SuspicionOutcome("", silent, dead, doubts, suspected, alone, sight.unprobed(unwell, alone))


NOT_PROBED = "nothing probes it from outside, so that its death would not be noticed"


@dataclass(frozen=True, slots=True)
class _Sight:
    """What can be said of single witnesses now, by this link."""

    link: ServerLink
    now_ns: int
    limits: SuspicionLimits
    own_lag_s: float
    silence_s: Mapping[HostId, float]
    fresh: Mapping[HostId, Probed | None]

    def accuse(
        self, hosts: Mapping[HostId, HostEvidence], alone: Mapping[HostId, LoneWitness]
    ) -> tuple[dict[HostId, Death], dict[HostId, str]]:
        """Which of them are dead, and what of others does not fit together."""
        dead: dict[HostId, Death] = {}
        doubts: dict[HostId, str] = {}
        patience_s = self.limits.silent_after_s + self.own_lag_s
        settled = (self.now_ns - self.link.doubted_ns) / 1e9 > patience_s
        for host, each in hosts.items():
            probed, silence_s = self.fresh[host], self.silence_s[host]
            if probed is None or not _failing(probed, self.limits.probe_failures):
                continue
            if silence_s <= patience_s:
                doubts[host] = f"outside probes fail ({probed.reason}), but its node process reports"
            elif settled and (host not in alone or self.is_out_of_patience(each, alone[host])):
                silence = "stopped in order" if each.stopped else "silent"
                reason = f"node process {silence} for {silence_s:.1f} s, and outside probes fail: "
                reason += probed.reason
                if host in alone:
                    reason += f"; {alone[host]} before, patience {self.limits.lone_witness_s:g} s"
                dead[host] = Death.seen(reason, probed, each.heard_ns)
        return dead, doubts

    def unprobed(
        self, hosts: Mapping[HostId, HostEvidence], alone: Mapping[HostId, LoneWitness]
    ) -> dict[HostId, str]:
        """Why outside probes are lost, of each host whose agent speaks alone now."""
        patience_s = self.limits.silent_after_s + self.own_lag_s
        found: dict[HostId, str] = {}
        for host, left in alone.items():
            speaks = self.silence_s[host] <= patience_s and not hosts[host].silence_is_known
            if left is LoneWitness.AGENT and speaks:
                probed = self.fresh[host]
                found[host] = NOT_PROBED if probed is None else f"outside probes fail: {probed.reason}"
        return found

    def left_alone(self, host: HostEvidence) -> LoneWitness | None:
        """The witness that spoke on for long when the other one did not. It may be silent, too, by now."""
        if self._longer(host.heard_ns, self._probes_gone_ns(host), host.spoke_since_ns):
            return LoneWitness.AGENT
        probed = host.probed
        if host.probes_lost and (probed is None or not probed.answers):
            return LoneWitness.AGENT
        if probed is None:
            return None
        if host.silence_is_known and not host.heard_ns and not probed.answered_mono_ns:
            return LoneWitness.PROBES  # as the rows have it: the server before this one knew
        agent_ns = max(host.heard_ns, self.link.since_ns)
        return LoneWitness.PROBES if self._longer(probed.answered_mono_ns, agent_ns, 0) else None

    def is_out_of_patience(self, host: HostEvidence, left: LoneWitness) -> bool:
        """Whether the witness that was alone has been silent for long enough as well."""
        last_ns = host.heard_ns if left is LoneWitness.AGENT or host.probed is None else 0
        if left is LoneWitness.PROBES and host.probed is not None:
            last_ns = host.probed.first_failed_mono_ns
        silent_ns = self.now_ns - max(last_ns, self.link.since_ns, self.link.doubted_ns)
        return silent_ns / 1e9 > self.limits.lone_witness_s + self.own_lag_s

    def _probes_gone_ns(self, host: HostEvidence) -> int | None:
        """Since when outside probes say nothing good, None while they do."""
        probed, limits = host.probed, self.limits
        stale_ns = round((limits.probe_stale_s + self.own_lag_s) * 1e9)
        if probed is None:
            return self.link.since_ns + stale_ns if host.to_be_probed else None
        if self.now_ns - probed.at_mono_ns > stale_ns:
            return probed.at_mono_ns + stale_ns
        return probed.first_failed_mono_ns if _failing(probed, limits.probe_failures) else None

    def _longer(self, spoke_ns: int, other_gone_ns: int | None, since_ns: int) -> bool:
        """Whether one witness spoke for long after the other was gone; what was in doubt is not counted."""
        if other_gone_ns is None or not spoke_ns:
            return False
        began_ns = max(other_gone_ns, since_ns, self.link.doubted_ns)
        return (spoke_ns - began_ns) / 1e9 > self.limits.gone_after_s + self.own_lag_s


def _too_many(
    missing: list[HostId],
    living: Mapping[HostId, HostEvidence],
    fresh: Mapping[HostId, Probed | None],
    silence_s: Mapping[HostId, float],
    convicted_by: tuple[float, int],
) -> str:
    """Why the whole is doubted; only when one of them would be accused, since single probes fail often."""
    patience_s, failures = convicted_by
    if len(missing) * 2 <= len(living):
        return ""
    if not any(silence_s[host] > patience_s and _failing(fresh[host], failures) for host in missing):
        return ""
    if len(living) == 1:
        return "only one host is left to watch: its death and a cut of our own network look the same"
    return f"{len(missing)} of {len(living)} hosts are silent at once: Homeostat itself may be cut off"


def _fresh(probed: Probed | None, now_ns: int, limits: SuspicionLimits, own_lag_s: float) -> Probed | None:
    """The latest result, unless it is too old to say anything."""
    if probed is None or (now_ns - probed.at_mono_ns) / 1e9 > limits.probe_stale_s + own_lag_s:
        return None
    return probed


def _failing(probed: Probed | None, times: int) -> bool:
    return probed is not None and probed.failures >= times

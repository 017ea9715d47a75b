"""Which hosts are dead, and when nobody can know. Pure: evidence and times are passed in.

Doubt yourself first (after memberlist's Lifeguard). A host is accused only when two independent witnesses
agree: its agent is silent *and* probes from outside fail. A silent agent alone is `agent_lost`; failing
probes alone are a stated doubt. While our own link is down, our own loop is late, or more than half of the
hosts miss any of their evidence at once, everything is unknown.

Invariant: of the hosts that were not known to be down before, never more than half are accused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from homeostat.contracts.nouns import HostId
from homeostat.fleet.liveness import Link, assess


@dataclass(frozen=True, slots=True)
class Probed:
    """What outside probes of one host say. `failures` and `answers` count results of one kind in a row.

    `first_failed_ns` (wall) and `first_failed_mono_ns` are when the failures began, 0 while it answers.
    `at_mono_ns` is the latest result: an old one is no evidence.
    """

    at_mono_ns: int
    failures: int = 0
    answers: int = 0
    reason: str = ""
    first_failed_ns: int = 0
    first_failed_mono_ns: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one host that has joined.

    `heard_ns` is when its agent last spoke (0: never to this server). `agent_lost`: its silence is known
    already. `down`: it is known to be dead. `probed` is None where nothing probes it.
    """

    heard_ns: int
    probed: Probed | None
    agent_lost: bool = False
    down: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds but for `probe_failures`. `probe_stale_s`: a result older than this is none."""

    lost_after_s: float
    silent_after_s: float
    probe_failures: int
    probe_stale_s: float


@dataclass(frozen=True, slots=True)
class Death:
    """Why a host is accused, and when its death was first seen."""

    reason: str
    first_failed_ns: int
    first_failed_mono_ns: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """`unknown` is why nothing may be concluded, empty when something may; then nobody is accused.

    `silent` are agents that are newly lost, `dead` hosts that are newly dead. `doubts` says of single hosts
    what does not fit together. `suspected` are hosts that are not dead and do not answer from outside now,
    and since when (wall): they may be about to be accused.
    """

    unknown: str = ""
    silent: Mapping[HostId, float] = field(default_factory=dict)
    dead: Mapping[HostId, Death] = field(default_factory=dict)
    doubts: Mapping[HostId, str] = field(default_factory=dict)
    suspected: Mapping[HostId, int] = field(default_factory=dict)


def judge(
    hosts: Mapping[HostId, Evidence], link: Link, now_ns: int, limits: Limits, own_lag_s: float = 0.0
) -> Judgement:
    """What all the evidence amounts to, on one monotonic clock. No host in it has said goodbye."""
    agents = assess(
        {host: each.heard_ns for host, each in hosts.items() if not (each.agent_lost or each.down)},
        link,
        now_ns,
        lost_after_s=limits.lost_after_s,
        own_lag_s=own_lag_s,
    )
    if agents.doubt:
        return Judgement(agents.doubt)
    if own_lag_s > limits.lost_after_s:
        return Judgement(f"the server's own loop was {own_lag_s:.1f} s late: what looks silent may not be")
    living = {host: each for host, each in hosts.items() if not each.down}
    fresh = {host: _fresh(each.probed, now_ns, limits, own_lag_s) for host, each in hosts.items()}
    patience_s = limits.silent_after_s + own_lag_s
    silence_s = {host: (now_ns - max(each.heard_ns, link.since_ns)) / 1e9 for host, each in living.items()}
    # A silence that is known already says nothing about now; a probe that fails once does.
    missing = [
        host
        for host, each in living.items()
        if (silence_s[host] > patience_s and not each.agent_lost) or _failing(fresh[host], 1)
    ]
    unknown = _too_many(missing, living, fresh, silence_s, (patience_s, limits.probe_failures))
    if unknown:
        return Judgement(unknown)
    dead: dict[HostId, Death] = {}
    doubts: dict[HostId, str] = {}
    settled = (now_ns - link.doubted_ns) / 1e9 > patience_s
    for host in missing:
        probed = fresh[host]
        if probed is None or not _failing(probed, limits.probe_failures):
            continue
        if silence_s[host] <= patience_s:
            doubts[host] = f"outside probes fail ({probed.reason}), but its agent speaks"
        elif settled:
            reason = (
                f"its agent is silent for {silence_s[host]:.1f} s and outside probes fail: {probed.reason}"
            )
            dead[host] = Death(reason, probed.first_failed_ns, probed.first_failed_mono_ns)
    for host, each in hosts.items():
        probed = fresh[host]
        if each.down and probed is not None and probed.answers >= limits.probe_failures:
            doubts[host] = "outside probes answer again; it is back when its agent speaks"
    silent = {host: seconds for host, seconds in agents.silent.items() if host not in dead}
    suspected = {
        host: probed.first_failed_ns
        for host, probed in fresh.items()
        if host in living and host not in dead and probed is not None and probed.failures
    }
    return Judgement("", silent, dead, doubts, suspected)


def _too_many(
    missing: list[HostId],
    living: Mapping[HostId, Evidence],
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
        return "only one host is left to look at: its death and our blindness look the same"
    return f"{len(missing)} of {len(living)} hosts miss evidence at once: the monitor is suspected first"


def _fresh(probed: Probed | None, now_ns: int, limits: Limits, own_lag_s: float) -> Probed | None:
    """The latest result, unless it is too old to say anything."""
    if probed is None or (now_ns - probed.at_mono_ns) / 1e9 > limits.probe_stale_s + own_lag_s:
        return None
    return probed


def _failing(probed: Probed | None, times: int) -> bool:
    return probed is not None and probed.failures >= times

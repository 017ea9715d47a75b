"""The one gate before everything that does harm. Pure: what is known is passed in, a named reason comes out.

Harm is what cannot be taken back: to power a host off, to start its guests elsewhere. Telling people is not.
The order of the questions is that of their weight; the first that says no is the reason. Nothing is armed
until somebody says so: a fresh installation decides, writes down what it would do, and does not do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from homeostat.contracts.nouns import HostId
from homeostat.fleet.settings import GateSettings


class Why(Enum):
    """Why an act may not be done; the value is the sentence for `explain`."""

    NOT_LEADING = "the act was decided in a term that is over"
    UNKNOWN = "nothing can be said of the hosts, so nothing is done to them"
    HELD = "a person asked that no harm be done to this host"
    STORM = "too many hosts died at once: the monitor is suspected, a person has to look"
    RATE = "enough harm was done lately; the next act waits"
    DRY_RUN = "fleet.gate.dry_run is set"
    NOT_ARMED = "the room only observes; `homeostat arm` lets it act"


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to do. `epoch` is of the term in which it was decided."""

    room: str
    act: str
    host: HostId
    epoch: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The gate stays shut. `sentence` is the reason with its figures."""

    why: Why
    sentence: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What the gate looks at. `now_s` and `harm_s` are seconds on one clock, `deaths_s` on another.

    `epoch` is that of our term. `unknown` is why nothing can be concluded. `deaths_s` is when each host died
    that is still down, or stopped answering, `fenced_s` when the receipt of one that is fenced was written,
    on the clock of the deaths. `vouched` are the hosts of which a person says that nothing runs there.
    `harm_s` is when acts that do harm were let through. `armed` says of each room whether it may act.
    """

    now_s: float
    epoch: int
    hosts: int
    unknown: str
    held: Mapping[HostId, str]
    deaths_s: Mapping[HostId, float]
    harm_s: Sequence[float]
    armed: Mapping[str, bool]
    fenced_s: Mapping[HostId, float] = field(default_factory=dict)
    vouched: frozenset[HostId] = frozenset()


def decide(asked: Asked, situation: Situation, settings: GateSettings) -> Refusal | None:
    """None when the act may be done now."""
    now_s = situation.now_s
    if asked.epoch != situation.epoch:
        return Refusal(Why.NOT_LEADING, Why.NOT_LEADING.value)
    if situation.unknown:
        return Refusal(Why.UNKNOWN, f"{Why.UNKNOWN.value}: {situation.unknown}")
    if reason := situation.held.get(asked.host, ""):
        return Refusal(Why.HELD, f"{Why.HELD.value}: {reason}")
    if storm := _storm(asked.host, situation, settings):
        return Refusal(Why.STORM, storm)
    harm = sum(now_s - at_s <= settings.harm_window_s for at_s in situation.harm_s)
    if harm >= settings.harm_max:
        return Refusal(Why.RATE, f"{Why.RATE.value} ({harm} acts in {settings.harm_window_s:g} s)")
    if settings.dry_run:
        return Refusal(Why.DRY_RUN, Why.DRY_RUN.value)
    if not situation.armed.get(asked.room, False):
        return Refusal(Why.NOT_ARMED, Why.NOT_ARMED.value)
    return None


def stopped_by_storm(asked: Asked, situation: Situation, settings: GateSettings) -> Refusal | None:
    """The refusal when nothing but a storm stops this act for good, so that a person has to be told."""
    refusal = decide(asked, situation, settings)
    if refusal is None or refusal.why is not Why.STORM:
        return None
    calm = decide(asked, replace(situation, deaths_s={}), settings)
    return refusal if calm is None or calm.why is Why.RATE else None


def _storm(host: HostId, situation: Situation, settings: GateSettings) -> str:
    """Why the death of this host is one of too many, empty when it is not.

    Deaths are compared with each other, not with now: a storm stays one until its hosts are back or fenced by
    a person. It does not become harmless by waiting. A person has looked; a driver's receipt says that the
    host is off now, not that the monitor was right: its host counts, and only what already had its receipt
    when the storm began goes on.
    """
    if host in situation.vouched:
        return ""
    died_s = situation.deaths_s.get(host, 0.0)
    others = ((each, at_s) for each, at_s in situation.deaths_s.items() if each not in situation.vouched)
    near_s = sorted(at_s for _, at_s in others if abs(died_s - at_s) <= settings.storm_window_s)
    limit = settings.storm_percent * situation.hosts
    began_s = next((at_s for dead, at_s in enumerate(near_s, 1) if dead > 1 and dead * 100 >= limit), None)
    if began_s is None or situation.fenced_s.get(host, began_s) < began_s:
        return ""
    return f"{Why.STORM.value} ({len(near_s)} of {situation.hosts} in {settings.storm_window_s:g} s)"

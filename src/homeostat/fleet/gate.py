"""The one gate before every disruptive action, and the arming of the components that may take them.

Disruptive is what cannot be taken back: to power a host off, to start its guests elsewhere. Notifying people
is not. The gate is pure: what is known is passed in, a named reason comes out. The order of its questions is
that of their weight; the first that says no is the reason. Each kind of act has a rate of its own: only
fencings use up that of fencing. Nothing is armed until somebody says so: a fresh installation decides, writes
down what it would do, and does not do it. A person's word about arming is in a table and wins over the
settings; the names are in the records of the components.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import Enum

import structlog

from homeostat.contracts.events.fleet import ComponentArmed
from homeostat.contracts.nouns import HostId, Mark
from homeostat.fleet.settings import RATE_MAX, GateSettings
from homeostat.fleet.store import arming_changes, load_arming
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import BadInput, NotFound
from homeostat.kernel.journal import JournalAppender, NewEvent, Submission

log = structlog.get_logger("arming")

EARLIER_NAMES: Mapping[str, tuple[str, ...]] = {"recovery": ("faults", "resources")}
"""Names of versions up to 0.1. What was armed under all of them is armed; one that was not keeps it off:
an upgrade never lets anything act that somebody had not let act."""
_PRESENT_NAMES = {old: new for new, earlier in EARLIER_NAMES.items() for old in earlier}


def component_armed_name(name: str) -> str:
    """The name by which a component is armed now, for one that an earlier version used."""
    return _PRESENT_NAMES.get(name, name)


def is_armed(name: str, by_settings: Collection[str], said: Mapping[str, bool]) -> bool:
    """Pure: a person's word under the present name, else under each earlier one, else the settings."""
    if name in said:
        return said[name]
    earlier = EARLIER_NAMES.get(name, ())
    listed = name in by_settings
    if not earlier:
        return listed
    return all(said.get(old, listed or old in by_settings) for old in earlier)


def half_armed(name: str, by_settings: Collection[str], said: Mapping[str, bool]) -> tuple[str, ...]:
    """Pure: the earlier names under which it was armed, when they were too few to arm it now."""
    if name in said or is_armed(name, by_settings, said):
        return ()
    return tuple(old for old in EARLIER_NAMES.get(name, ()) if said.get(old, old in by_settings))


class Arming:
    """`components` says of each component whether it may act; read by the gate, changed by people."""

    def __init__(
        self,
        appender: JournalAppender,
        readers: Readers,
        clock: Clock,
        armed_by_settings: Collection[str],
        armable: Collection[str],
    ) -> None:
        self._appender, self._readers, self._clock = appender, readers, clock
        self._by_settings, self._armable = armed_by_settings, armable
        self._said: dict[str, bool] = {}
        self._withheld: set[str] = set()

    @property
    def components(self) -> Mapping[str, bool]:
        """Name to whether it may act."""
        return {
            name: name not in self._withheld and is_armed(name, self._by_settings, self._said)
            for name in self._armable
        }

    async def reload(self) -> None:
        """What people said before this server started. Warns of what an upgrade disarmed."""
        self._said = await self._readers.read(load_arming)
        for name in self._armable:
            if armed := half_armed(name, self._by_settings, self._said):
                log.warning(
                    f"{name} is not armed: it was only under a part of its names until 0.1",
                    armed=", ".join(armed),
                    means=f"{name} only observes; no host is fenced or recovered by it",
                    command=f"homeostat arm {name}",
                )

    async def set(self, component: str, *, armed: bool, by: str) -> None:
        """Let a component act, or only observe. Nothing happens when it is so already. NotFound: none such.

        An earlier name disarms, but does not arm: it meant less than the present one does (BadInput). It
        stops acting at once, also when nobody knows whether that was written down.
        """
        name = component_armed_name(component)
        if name not in self._armable:
            known = ", ".join(self._armable)
            raise NotFound(f"no component {component!r} takes disruptive actions; known: {known}")
        if armed and name != component:
            raise BadInput(
                "component", component, f"it is a part of {name} now, which is armed as a whole: {name}"
            )
        if self._said.get(name) is armed and name not in self._withheld:
            return
        if not armed:
            self._withheld.add(name)
        now_ns = self._clock.wall_ns()
        subject = f"component/{name}"
        draft = NewEvent(ComponentArmed(name, armed, by), subject, now_ns, "api", f"{subject}/{now_ns}")
        changes = arming_changes(name, EARLIER_NAMES.get(name, ()), armed, now_ns, by)
        await self._appender.append(Submission("arming", (draft,), changes))
        self._said[name] = armed
        self._withheld.discard(name)


class GateReason(Enum):
    """Why an act may not be done; the value is the sentence for `explain`."""

    NOT_LEADING = "the action was decided by a server that no longer leads"
    UNKNOWN = "the state of the hosts is unknown, so nothing is done to them"
    HELD = "an operator holds this host"
    STORM = "too many hosts went down at once: Homeostat itself may be cut off; check hosts and network"
    RATE = "the limit for this kind of action is reached; the next one waits"
    DRY_RUN = "dry run: fleet.gate.dry_run is set"
    NOT_ARMED = "the component is not armed: it only observes; `homeostat arm COMPONENT` lets it act"


@dataclass(frozen=True, slots=True)
class GateRequest:
    """What somebody wants to do. `epoch` is of the term in which it was decided."""

    component: str
    act: str
    host: HostId
    epoch: int


@dataclass(frozen=True, slots=True)
class GateRefusal:
    """The gate stays shut. `sentence` is the reason with its figures."""

    why: GateReason
    sentence: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What the gate looks at. `now_s` and `done_s` are seconds on one clock, `deaths_s` on another.

    `epoch` is that of our term. `living` are the hosts whose death would be seen: not down, not stopped in
    order, and looked at from outside. `unknown` is why nothing can be concluded. `deaths_s` is when each host
    died that is still down, or stopped answering, `fenced_s` when the receipt of one that is fenced was
    written, on the clock of the deaths. `vouched` are the hosts of which a person says that nothing runs
    there. `done_s` is when acts were let through, by kind of act. `armed` says of each component whether it
    may act.
    """

    now_s: float
    epoch: int
    living: Set[HostId]
    unknown: str
    held: Mapping[HostId, str]
    deaths_s: Mapping[HostId, float]
    done_s: Mapping[str, Sequence[float]]
    armed: Mapping[str, bool]
    fenced_s: Mapping[HostId, float] = field(default_factory=dict)
    vouched: frozenset[HostId] = frozenset()


@dataclass(frozen=True, slots=True)
class ActRate:
    """At most `most` acts of one kind in `window_s`; `setting` is where an operator changes that."""

    most: int
    window_s: float
    setting: str


START_ELSEWHERE = "start_elsewhere"
"""The act's name at the gate: to start guests of one dead host on others."""


def rate_of(act: str, settings: GateSettings) -> ActRate:
    """The rate of one kind of act. One that is not known here has that of fencing, the strictest."""
    if act in (Mark.MARK_DOWN, Mark.SET_ERROR):
        return ActRate(settings.mark_max, settings.mark_window_s, "fleet.gate.mark_max")
    if act == START_ELSEWHERE:
        return ActRate(settings.start_max, settings.start_window_s, "fleet.gate.start_max")
    return ActRate(settings.harm_max, settings.harm_window_s, "fleet.gate.harm_max")


class RecentActs:
    """When acts were let through, by kind, for the rates. Each has a name: counted again, it counts once."""

    def __init__(self) -> None:
        self._done_s: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def count(self, act: str, name: str, at_s: float) -> None:
        done = self._done_s[act]
        done.pop(name, None)
        done[name] = at_s
        if len(done) > RATE_MAX:
            del done[next(iter(done))]

    def discard(self, act: str, name: str) -> None:
        """It is not done after all, or decided anew."""
        self._done_s[act].pop(name, None)

    def by_kind(self) -> Mapping[str, Sequence[float]]:
        return {act: tuple(done.values()) for act, done in self._done_s.items()}


def decide(asked: GateRequest, situation: Situation, settings: GateSettings) -> GateRefusal | None:
    """None when the act may be done now."""
    now_s = situation.now_s
    if asked.epoch != situation.epoch:
        return GateRefusal(GateReason.NOT_LEADING, GateReason.NOT_LEADING.value)
    if situation.unknown:
        return GateRefusal(GateReason.UNKNOWN, f"{GateReason.UNKNOWN.value}: {situation.unknown}")
    if reason := situation.held.get(asked.host, ""):
        return GateRefusal(GateReason.HELD, f"{GateReason.HELD.value}: {reason}")
    if storm := _storm(asked.host, situation, settings):
        return GateRefusal(GateReason.STORM, storm)
    rate = rate_of(asked.act, settings)
    done = sum(now_s - at_s <= rate.window_s for at_s in situation.done_s.get(asked.act, ()))
    if done >= rate.most:
        said = f"{asked.act}: {done} in {rate.window_s:g} s, {rate.setting}: {rate.most}"
        return GateRefusal(GateReason.RATE, f"{GateReason.RATE.value} ({said})")
    if settings.dry_run:
        return GateRefusal(GateReason.DRY_RUN, GateReason.DRY_RUN.value)
    if not situation.armed.get(component_armed_name(asked.component), False):
        return GateRefusal(GateReason.NOT_ARMED, GateReason.NOT_ARMED.value)
    return None


def storm_refusal(asked: GateRequest, situation: Situation, settings: GateSettings) -> GateRefusal | None:
    """The refusal when nothing but a storm stops this act for good, so that a person has to be told."""
    refusal = decide(asked, situation, settings)
    if refusal is None or refusal.why is not GateReason.STORM:
        return None
    calm = decide(asked, replace(situation, deaths_s={}), settings)
    return refusal if calm is None or calm.why is GateReason.RATE else None


def _storm(host: HostId, situation: Situation, settings: GateSettings) -> str:
    """Why the death of this host is one of too many, empty when it is not.

    Deaths are compared with each other, not with now: a storm stays one until its hosts are back or fenced by
    a person. It does not become harmless by waiting. A person has looked; a driver's receipt says that the
    host is off now, not that the monitor was right: its host counts, and only what already had its receipt
    when the storm began goes on. Their share is of the hosts that lived when it began: what was down before,
    was stopped, or was never watched would only make a storm look smaller.
    """
    if host in situation.vouched:
        return ""
    died_s = situation.deaths_s.get(host, 0.0)
    near = {
        each: at_s
        for each, at_s in situation.deaths_s.items()
        if abs(died_s - at_s) <= settings.storm_window_s
    }
    near_s = sorted(at_s for each, at_s in near.items() if each not in situation.vouched)
    lived = len(situation.living | near.keys())
    limit = settings.storm_percent * lived
    began_s = next((at_s for dead, at_s in enumerate(near_s, 1) if dead > 1 and dead * 100 >= limit), None)
    if began_s is None or situation.fenced_s.get(host, began_s) < began_s:
        return ""
    return f"{GateReason.STORM.value} ({len(near_s)} of {lived} in {settings.storm_window_s:g} s)"

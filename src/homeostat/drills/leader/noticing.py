"""What our own fault manager made of a drill, from the journal alone: faults, telling, acts. Pure.

Only published events are read. Moments stay with the server: how late something was is for who asked to say,
on its own clock; `told_after_ms` is one span on this server's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from homeostat.contracts.events.faults import FaultRaised
from homeostat.contracts.events.fleet import AgentReturned, HostBack
from homeostat.contracts.events.notices import NoticeDelivered
from homeostat.contracts.events.resources import (
    ActionFinished,
    ActionIntended,
    GuestMoved,
    ResourceDown,
    ResourceUp,
)
from homeostat.contracts.nouns import node_subject, resource_subject
from homeostat.kernel.journal import Envelope

READ = (
    FaultRaised,
    NoticeDelivered,
    ResourceDown,
    ResourceUp,
    ActionIntended,
    ActionFinished,
    GuestMoved,
    HostBack,
    AgentReturned,
)
KINDS = tuple(kind.__name__ for kind in READ)
_RAISED = ":raised"


@dataclass(frozen=True, slots=True)
class RaisedFault:
    """A fault of the drill. `told_after_ms`: from its commit to the first consumer's answer, if any."""

    fault: str
    kind: str
    about: str
    told_after_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """Something works again, and by whom that was done."""

    what: str
    by: str


@dataclass(frozen=True, slots=True)
class Noticing:
    """In the journal's order."""

    faults: tuple[RaisedFault, ...]
    returns: tuple[Return, ...]


@dataclass(slots=True)
class _Fold:
    """`out`: what is down now; `acts`: who said that it will act on what, by action; `by`: who did."""

    hosts: Collection[str]
    resources: Collection[str]
    faults: dict[str, RaisedFault] = field(default_factory=dict)
    returns: list[Return] = field(default_factory=list)
    out: set[str] = field(default_factory=set)
    acts: dict[str, tuple[str, str]] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)
    mine: set[str] = field(default_factory=set)

    def take(self, envelope: Envelope) -> None:
        event = envelope.event
        match event:
            case ResourceDown():
                if event.host in self.hosts or event.resource in self.resources:
                    self.mine.add(resource_subject(event.resource))
                    self.out.add(resource_subject(event.resource))
            case FaultRaised() if self._is_mine(event.about):
                self.faults[event.fault] = RaisedFault(event.fault, event.kind.value, event.about)
            case NoticeDelivered():
                self._told(envelope.at_ns, event)
            case ActionIntended():
                self.acts[event.action] = (envelope.subject, _words(event.owner_of_act, event.verb))
            case ActionFinished(outcome="ok") if event.action in self.acts:
                about, who = self.acts[event.action]
                self.by[about] = who
            case GuestMoved():
                about = resource_subject(event.resource)
                if self._is_mine(about) or event.from_host in self.hosts:
                    self.mine.add(about)
                    self.out.add(about)
                    self.by[about] = f"the leader, which moved it from {event.from_host} to {event.host}"
            case ResourceUp():
                self._up(resource_subject(event.resource), event.resource, "itself: no act of ours")
            case HostBack() if event.host in self.hosts:
                self.returns.append(Return(f"host {event.host}", f"itself: {event.reason}"))
            case AgentReturned() if event.host in self.hosts:
                self.returns.append(Return(f"node process on {event.host}", "its own supervisor"))
            case _:
                pass

    def _is_mine(self, about: str) -> bool:
        named = (*map(node_subject, self.hosts), *map(resource_subject, self.resources))  # type: ignore[arg-type]
        return about in self.mine or about in named

    def _told(self, at_ns: int, event: NoticeDelivered) -> None:
        fault = self.faults.get(event.key.removesuffix(_RAISED).rpartition(":")[2])
        if fault is None or not event.key.endswith(_RAISED) or fault.told_after_ms is not None:
            return
        if event.offered_ns is not None:
            after_ms = max(0, at_ns - event.offered_ns) / 1e6
            self.faults[fault.fault] = replace(fault, told_after_ms=after_ms)

    def _up(self, about: str, name: str, nobody: str) -> None:
        if about in self.out:
            self.out.discard(about)
            self.returns.append(Return(name, self.by.pop(about, nobody)))


def noticing(events: Iterable[Envelope], hosts: Collection[str], resources: Collection[str]) -> Noticing:
    """Everything that the journal says of these hosts and resources, among the events of one run."""
    fold = _Fold(frozenset(hosts), frozenset(resources))
    for each in events:
        fold.take(each)
    return Noticing(tuple(fold.faults.values()), tuple(fold.returns))


def _words(owner_of_act: str, verb: str) -> str:
    noun, _, host = owner_of_act.partition("/")
    return f"the runner on {host} ({verb})" if noun == "node" else f"{owner_of_act} ({verb})"

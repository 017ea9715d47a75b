"""What would be hit if a host died, and who would be told, before anything happens. Pure.

Nothing here is a model of the fault path: it asks the same functions, with a death that did not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from homeostat.contracts.nouns import HostId
from homeostat.faults.herald import picture_of
from homeostat.faults.hosts import seen_dead
from homeostat.faults.inspection import fault_of
from homeostat.fleet.model import Resource, Topology
from homeostat.fleet.suspicion import Death
from homeostat.kernel.journal import Local
from homeostat.notices.matching import may_hear, told
from homeostat.notices.model import FaultPicture, Silence, Subscription, Transition

SUPPOSED = Death("supposed", 0, 0)


@dataclass(frozen=True, slots=True)
class Foretold:
    """A notice that would be sent, or kept back by `silence`. `affected` are the subjects that it names."""

    subscription: str
    project: str
    transition: Transition
    affected: tuple[str, ...]
    silence: Silence | None = None


@dataclass(frozen=True, slots=True)
class Exposure:
    """`resources` would be in error, `notices` would be told; when the host is back, the same are told so."""

    host: HostId
    resources: tuple[Resource, ...]
    notices: tuple[Foretold, ...]


Quiet = Callable[[Iterable[Subscription], FaultPicture, int], Mapping[str, Silence]]
"""Which of these subscriptions a silence spares a fault at a moment, by name: `Silences.covering`."""


def _nobody(
    _subscriptions: Iterable[Subscription], _fault: FaultPicture, _now_ns: int
) -> Mapping[str, Silence]:
    return {}


def exposure(
    topology: Topology,
    host: HostId,
    subscriptions: Iterable[Subscription],
    now_ns: int,
    quiet: Quiet = _nobody,
) -> Exposure:
    """What the death of a known host would mean now."""
    picture = picture_of(fault_of(seen_dead(topology, host, SUPPOSED), Local(0)))
    hit = {each.subject.partition("/")[2] for each in picture.affected}
    resources = sorted((row for row in topology.on_host(host) if row.id in hit), key=lambda row: row.id)
    listeners = [subscription for subscription, _ in told(subscriptions, picture, now_ns)]
    silent = quiet(listeners, picture, now_ns)
    notices = tuple(
        Foretold(
            each.name,
            each.owner,
            transition,
            tuple(hurt.subject for hurt in picture.affected if may_hear(each.owner, hurt.owner)),
            silent.get(each.name),
        )
        for transition in Transition
        for each in listeners
    )
    return Exposure(host, tuple(resources), notices)

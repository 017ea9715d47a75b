"""What goes wrong in a run, and when: drawn from the seed. Not every run has every kind of misfortune.

A run that mixes everything hides as much as it shows, so each seed chooses which kinds it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from random import Random

from homeostat.sim.disk import Mishap
from homeostat.sim.network import Weather


class Kind(Enum):
    """Kinds of misfortune."""

    SERVER_KILLED = "servers are killed"
    COMMIT_CRASH = "servers are killed at their commits"
    STORE_TROUBLE = "the database does not answer, or its answers are lost"
    TWO_LEADERS = "a second server leads while the first goes on"
    NODE_KILLED = "node processes are killed"
    NODE_STOPPED = "node processes are stopped in order"
    STORE_LOST = "observation stores are lost or put back from copies"
    BAD_NETWORK = "messages are lost, late, repeated and reordered"
    PARTITIONS = "links are cut"
    BAD_CONSUMERS = "consumers do not answer"
    CLUMSY_AGENTS = "starts fail"
    SMALL_BOUNDS = "lists and queues are short"
    HOSTS_DIE = "whole hosts die"
    HOSTS_UNSEEN = "hosts cannot be reached from outside, or by nobody"
    STORMS = "all hosts die or vanish at once"
    BAD_SWITCHES = "power switches fail"
    PEOPLE = "people hold hosts, arm and disarm"


HOST_KINDS = (Kind.HOSTS_DIE, Kind.HOSTS_UNSEEN, Kind.STORMS, Kind.BAD_SWITCHES, Kind.PEOPLE)


@dataclass(frozen=True, slots=True)
class Plan:
    """The misfortune of one seed. Steps are (seconds, what, whom) in order of time.

    `armed` and `moves` say whether hosts are fenced and guests started elsewhere from the first start on.
    """

    kinds: frozenset[Kind]
    duration_s: float
    steps: tuple[tuple[float, str, int], ...]
    weather: Weather
    armed: bool = False
    moves: bool = False

    def __str__(self) -> str:
        return "; ".join(sorted(kind.value for kind in self.kinds)) or "services die, nothing else"


_STEPS = {
    Kind.SERVER_KILLED: (("kill server", 3),),
    Kind.TWO_LEADERS: (("second server", 2),),
    Kind.NODE_KILLED: (("kill node", 4),),
    Kind.NODE_STOPPED: (("stop node", 2),),
    Kind.STORE_LOST: (("lose store", 1), ("old store", 1)),
    Kind.PARTITIONS: (("cut node", 3), ("cut server", 1), ("cut all", 1)),
    Kind.BAD_CONSUMERS: (("bad consumer", 5),),
    Kind.HOSTS_DIE: (("kill host", 3),),
    Kind.HOSTS_UNSEEN: (("hide host", 2), ("isolate host", 2)),
    Kind.STORMS: (("hide all", 1), ("kill all", 1)),
    Kind.BAD_SWITCHES: (("bad switch", 3), ("blind death", 1)),
    Kind.PEOPLE: (("hold host", 3), ("arm", 1), ("disarm", 1)),
}


def plan(chance: Random, hosts: int, services: int, consumers: int) -> Plan:
    """Draw the misfortune of one run."""
    kinds = frozenset(kind for kind in Kind if kind not in HOST_KINDS and chance.random() < 0.4)
    duration_s = chance.uniform(6.0, 16.0)
    steps = [
        (chance.uniform(2.0, duration_s), "kill service", chance.randrange(services))
        for _ in range(chance.randint(2, 8))
    ]
    whom = {"bad consumer": consumers}
    for kind in sorted(kinds, key=lambda each: each.name):
        for what, most in _STEPS.get(kind, ()):
            steps += [
                (chance.uniform(0.5, duration_s), what, chance.randrange(whom.get(what, hosts)))
                for _ in range(chance.randint(1, most))
            ]
    weather = Weather()
    if Kind.BAD_NETWORK in kinds:
        weather = Weather(
            chance.choice((0.05, 0.2, 0.4)), chance.choice((0.0, 0.2)), chance.uniform(0.05, 1.5)
        )
    return Plan(kinds, duration_s, tuple(sorted(steps)), weather)


def with_hosts(chance: Random, made: Plan, hosts: int) -> Plan:
    """The same, and what befalls whole hosts. Longer, since a dead host takes its time to come back."""
    kinds = frozenset(kind for kind in HOST_KINDS if chance.random() < 0.5)
    duration_s = made.duration_s + 6.0
    steps = list(made.steps)
    for kind in HOST_KINDS:
        for what, most in _STEPS[kind] if kind in kinds else ():
            steps += [
                (chance.uniform(2.0, duration_s), what, chance.randrange(hosts))
                for _ in range(chance.randint(1, most))
            ]
    return replace(
        made,
        kinds=made.kinds | kinds,
        duration_s=duration_s,
        steps=tuple(sorted(steps)),
        armed=chance.random() < 0.8,
    )


def with_guests(chance: Random, made: Plan, guests: int) -> Plan:
    """The same, and what befalls guests that can move."""
    steps = [
        (chance.uniform(3.0, made.duration_s), "kill guest", chance.randrange(guests))
        for _ in range(chance.randint(0, 3))
    ]
    if Kind.PEOPLE in made.kinds:
        steps += [
            (chance.uniform(2.0, made.duration_s), what, 0)
            for what in ("arm guests", "disarm guests")
            for _ in range(chance.randint(0, 1))
        ]
    steps = sorted([*made.steps, *steps])
    return replace(made, steps=tuple(steps), moves=chance.random() < 0.85)


def mishap(chance: Random, kinds: frozenset[Kind]) -> Mishap:
    """What befalls the next commit while misfortune lasts."""
    drawn = chance.random()
    if Kind.COMMIT_CRASH in kinds:
        if drawn < 0.06:
            return Mishap.CRASH_BEFORE
        if drawn < 0.12:
            return Mishap.CRASH_AFTER
    if Kind.STORE_TROUBLE in kinds:
        if drawn > 0.94:
            return Mishap.UNAVAILABLE
        if drawn > 0.88:
            return Mishap.ANSWER_LOST
    return Mishap.NONE

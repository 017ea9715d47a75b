"""What is run for the evidence: which case on which variant of the cloud, how often, and when it is enough.

Pure. A run that decided is never repeated, whatever it said. One that could not (INCONCLUSIVE, or an ERROR:
a proof was missing) is, at most twice, and every one of them is kept and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from homeostat.kernel.errors import BadInput
from homeostat.monitors.verdicts import Verdict
from testbed.plan import NODE_1, Checks

REPEATED_AT_MOST = 2
_UNDECIDED = frozenset({Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.ABORTED})


@dataclass(frozen=True, slots=True)
class Variant:
    """A cloud as `up` makes it. All but the plain one differ from it in one thing."""

    name: str
    differs: str
    database_on: str = "infra"
    vip_on: str = NODE_1.name
    checks: Checks = Checks.fast
    not_restarted: tuple[str, ...] = ()


PLAIN = Variant("plain", "two controllers, the database on neither, the address first on Node1, fast checks")
DATABASE = Variant("database-on-node1", "MariaDB has its data on Node1's disk", database_on=NODE_1.name)
ADDRESS = Variant("address-elsewhere", "the address is first on the other controller", vip_on="ctl2")
SLOW = Variant("slow-checks", "the balancer checks with `inter 1s fall 2`, timeout 2 s", checks=Checks.slow)
NOT_RESTARTED = Variant(
    "not-restarted",
    "nobody starts keystone, nova-api and haproxy again on Node1",
    not_restarted=("keystone", "nova-api", "haproxy"),
)
VARIANTS = (PLAIN, ADDRESS, SLOW, NOT_RESTARTED, DATABASE)
"""In the order in which they are brought up."""


@dataclass(frozen=True, slots=True)
class Case:
    """A drill on a variant, and what it has to say there."""

    drill: str
    variant: Variant = PLAIN
    expected: frozenset[Verdict] = frozenset({Verdict.PASS})
    about: str = ""

    @property
    def id(self) -> str:
        """Also the name of its folder."""
        return self.drill if self.variant is PLAIN else f"{self.drill}.{self.variant.name}"


_FAIL = frozenset({Verdict.FAIL})
_NOTHING_HANGS_ON_IT = "nothing that is monitored uses Node1's disk: it must say so, and does not count"
_NOBODY_RESTARTS = "nobody starts it again: must not pass"
CASES = (
    Case("nova-api-down"),
    Case("neutron-server-down"),
    Case("keystone-down"),
    Case("glance-api-down"),
    Case("cinder-api-down"),
    Case("controller-cpu-overload"),
    Case(
        "controller-disk-io-overload", expected=frozenset({Verdict.INCONCLUSIVE}), about=_NOTHING_HANGS_ON_IT
    ),
    Case("api-balancer-down", about="Node1 holds the address"),
    Case("controller-down", about="the address moves: its holder is switched off"),
    Case("api-balancer-down-standby", ADDRESS, about="Node1 does not hold the address"),
    Case("keystone-down", SLOW, about="beside the fast checks"),
    Case("nova-api-down", SLOW, about="beside the fast checks"),
    Case("keystone-down", NOT_RESTARTED, _FAIL, _NOBODY_RESTARTS),
    Case("nova-api-down", NOT_RESTARTED, _FAIL, _NOBODY_RESTARTS),
    Case("api-balancer-down", NOT_RESTARTED, _FAIL, _NOBODY_RESTARTS),
    Case("controller-disk-io-overload", DATABASE, about="the database uses the disk that is hit"),
)
"""The eight of the document in its order, then what it leaves open."""

Verdicts = Mapping[tuple[str, int], Sequence[Verdict]]
"""(case, which of its runs) -> what each attempt said, in their order."""


def chosen(only: Sequence[str]) -> tuple[Case, ...]:
    """All of them, or those that are named, by the id of the case. BadInput names those that there are."""
    by_id = {each.id: each for each in CASES}
    for name in only:
        if name not in by_id:
            raise BadInput("--only", name, f"one of {', '.join(by_id)}")
    return tuple(each for each in CASES if not only or each.id in only)


def is_enough(case: Case, said: Sequence[Verdict]) -> bool:
    """Whether these attempts are all that one run of the case may have."""
    if not said:
        return False
    return said[-1] in case.expected or said[-1] not in _UNDECIDED or len(said) > REPEATED_AT_MOST


def left(cases: Sequence[Case], runs: int, verdicts: Verdicts) -> Iterator[tuple[Case, int]]:
    """What is still to be run: variant by variant, and there in rounds, so that each case has one early."""
    for variant in VARIANTS:
        for number in range(1, runs + 1):
            for case in cases:
                if case.variant is variant and not is_enough(case, verdicts.get((case.id, number), ())):
                    yield case, number


def surprises(cases: Sequence[Case], verdicts: Verdicts) -> list[str]:
    """`case, run N: what it said`, where that is not what it has to say."""
    return [
        f"{case.id}, run {number}: {said[-1].value}, not {' or '.join(sorted(case.expected))}"
        for case in cases
        for (name, number), said in sorted(verdicts.items())
        if name == case.id and said and said[-1] not in case.expected
    ]

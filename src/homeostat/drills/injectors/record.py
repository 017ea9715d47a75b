"""The record of one fault, what a host permits, and what every injector is.

A record is one JSON file: what was ordered, and a section for each verb that has run. It holds everything
that the next verb needs, so each may run in a process of its own. Standard library only, python3.9: it is
shipped to hosts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Protocol

from homeostat.drills import node_keeper as keeper
from homeostat.drills.injectors.permitted import KINDS, Permitted
from homeostat.drills.injectors.words import Words
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed

Section = Dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What is to be broken."""

    fault: str
    injector: str
    deadline_s: float
    """Seconds without a renewal after which it is undone."""
    target: Mapping[str, Any]


def order_of(given: Mapping[str, Any]) -> Order:
    """The order in a record. BadInput."""
    words = Words(given)
    target = words.mapping("target")
    order = Order(
        words.needed("fault", r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"),
        words.one_of("injector", KINDS),
        words.number("deadline_s", keeper.DEADLINE_S, 0.001, 3600),
        target,
    )
    words.end()
    return order


@dataclass(frozen=True)
class Fault:
    """An order on a host, and what its verbs have found so far."""

    order: Order
    node: Permitted
    sections: Mapping[str, Section]

    @property
    def id(self) -> str:
        return self.order.fault

    @property
    def keeper(self) -> Path:
        return self.node.keeper

    def section(self, verb: str) -> Section:
        """What an earlier verb found. BadInput when it has not run."""
        if verb not in self.sections:
            raise BadInput("--plan", verb, f"its section must be there: run `{verb}` on this file first")
        return self.sections[verb]

    @property
    def target(self) -> Words:
        """The words of the target, none taken yet."""
        return Words(self.order.target)

    def check_permitted(self) -> None:
        """NotAllowed unless the host's file permits this kind of injector, and the host is not halted."""
        host, kind = self.node, self.order.injector
        if not host.enabled:
            what = f"drills.enabled is off in its {host.file}, so {kind} is refused"
            raise NotAllowed(f"{host.host}: {what}; its owner writes `enabled: true` there")
        if kind not in host.injectors:
            allowed = ", ".join(host.injectors) or "none"
            what = f"drills.injectors in its {host.file} allows {allowed}; not {kind}"
            raise NotAllowed(f"{host.host}: {what}; its owner adds it there")
        if keeper.status(self.keeper)["halted"]:
            raise NotAllowed(f"{self.node.host}: halted; `homeostat node resume` lets faults in again")


class Injector(Protocol):
    """One kind of breaking. Each verb takes the fault and returns its section."""

    def probe(self, fault: Fault) -> Section:
        """Whether it can be done here, and what is missing. Touches nothing."""
        ...

    def plan(self, fault: Fault) -> Section:
        """Exactly what will be hit and how it is undone. Touches nothing."""
        ...

    def inject(self, fault: Fault) -> Section:
        """Do what was planned, armed at the keeper."""
        ...

    def prove(self, fault: Fault) -> Section:
        """`proven`: whether it took effect, by looking at the effect."""
        ...

    def undo(self, fault: Fault) -> Section:
        """Have it undone now; the keeper's outcome."""
        ...

    def verify_undone(self, fault: Fault) -> Section:
        """`undone`: whether nothing of it is left, by looking again."""
        ...


@contextmanager
def keepers_words() -> Iterator[None]:
    """The keeper's errors as ours: it imports nothing of the product."""
    try:
        yield
    except keeper.Refused as error:
        raise NotAllowed(str(error)) from error
    except keeper.KeeperError as error:
        raise GiveUp(str(error)) from error
    except PermissionError as error:
        raise NotAllowed(f"not permitted: {error}; run as root, or as the owner of what is hit") from error


def healed(root: Path, fault: str) -> Section:
    """What came of one fault that was left; one that cannot be undone now stops no other."""
    try:
        return keeper.undo(root, fault)
    except (keeper.KeeperError, PermissionError) as error:
        return {"fault": fault, "undone": False, "within_deadline": False, "reason": str(error), "steps": []}


def undo(fault: Fault) -> Section:
    """Have the fault undone now by the keeper, whatever its kind."""
    with keepers_words():
        return keeper.undo(fault.keeper, fault.id)


def verify_undone(fault: Fault) -> Section:
    """Look again at every step that the keeper has undone."""
    with keepers_words():
        found = keeper.outcome(fault.keeper, fault.id)
    if found is None:
        return {"undone": False, "reason": "the keeper has not undone it yet", "steps": []}
    looks = [keeper.verify_step(each["step"], fault.keeper) for each in found["steps"]]
    return {
        "undone": found["undone"] and all(look["undone"] for look in looks),
        "reason": found["reason"],
        "within_deadline": found["within_deadline"],
        "steps": looks,
    }

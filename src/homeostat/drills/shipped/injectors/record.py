"""The record of one injected fault, the protocol of an injector, and the undo that all injectors share.

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

from homeostat.drills.shipped.keeper import machine, orders, steps
from homeostat.drills.shipped.permissions import KINDS, FieldReader, HostPermissions
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed

Section = Dict[str, Any]


@dataclass(frozen=True)
class FaultOrder:
    """What is to be broken."""

    fault: str
    injector: str
    deadline_s: float
    """Seconds without a renewal after which it is undone."""
    target: Mapping[str, Any]


def read_order(given: Mapping[str, Any]) -> FaultOrder:
    """The order in a record. BadInput."""
    words = FieldReader(given)
    target = words.mapping("target")
    order = FaultOrder(
        words.needed("fault", r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"),
        words.one_of("injector", KINDS),
        words.number("deadline_s", steps.DEADLINE_S, 0.001, 3600),
        target,
    )
    words.end()
    return order


@dataclass(frozen=True)
class InjectedFault:
    """An order on a host, and what its verbs have found so far."""

    order: FaultOrder
    node: HostPermissions
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
    def target(self) -> FieldReader:
        """The words of the target, none taken yet."""
        return FieldReader(self.order.target)

    def check_permitted(self) -> None:
        """NotAllowed unless the host's file permits this kind of injector, and the host is not halted."""
        host, kind = self.node, self.order.injector
        if not host.enabled:
            what = f"drills.enabled is false in its {host.file}, so {kind} is refused"
            raise NotAllowed(f"{host.host}: {what}; to permit it, set `enabled: true` there")
        if kind not in host.injectors:
            allowed = ", ".join(host.injectors) or "none"
            what = f"drills.injectors in its {host.file} allows {allowed}; not {kind}"
            raise NotAllowed(f"{host.host}: {what}; to permit it, add it there")
        if orders.status(self.keeper)["halted"]:
            raise NotAllowed(f"{self.node.host}: halted; `homeostat node resume` lets faults in again")


class Injector(Protocol):
    """One kind of breaking. Each verb takes the fault and returns its section; the undo is the keeper's."""

    def probe(self, fault: InjectedFault) -> Section:
        """Whether it can be done here, and what is missing. Touches nothing."""

    def plan(self, fault: InjectedFault) -> Section:
        """Exactly what will be hit and how it is undone. Touches nothing."""

    def inject(self, fault: InjectedFault) -> Section:
        """Do what was planned, armed at the keeper."""

    def prove(self, fault: InjectedFault) -> Section:
        """`proven`: whether it took effect, by looking at the effect."""


@contextmanager
def keeper_errors() -> Iterator[None]:
    """The keeper's errors as ours: it imports nothing of the product."""
    try:
        yield
    except machine.KeeperRefusal as error:
        raise NotAllowed(str(error)) from error
    except machine.KeeperError as error:
        raise GiveUp(str(error)) from error
    except PermissionError as error:
        raise NotAllowed(f"not permitted: {error}; run as root, or as the owner of what is hit") from error


def heal_fault(root: Path, fault: str) -> Section:
    """What came of one fault that was left; one that cannot be undone now stops no other."""
    try:
        return orders.undo(root, fault)
    except (machine.KeeperError, PermissionError) as error:
        return {"fault": fault, "undone": False, "within_deadline": False, "reason": str(error), "steps": []}


def undo(fault: InjectedFault) -> Section:
    """Have the fault undone now by the keeper, whatever its kind."""
    with keeper_errors():
        return orders.undo(fault.keeper, fault.id)


def verify_undone(fault: InjectedFault) -> Section:
    """Look again at every step that the keeper has undone."""
    with keeper_errors():
        found = orders.outcome(fault.keeper, fault.id)
    if found is None:
        return {"undone": False, "reason": "the keeper has not undone it yet", "steps": []}
    looks = [steps.verify_step(each["step"], fault.keeper) for each in found["steps"]]
    return {
        "undone": found["undone"] and all(look["undone"] for look in looks),
        "reason": found["reason"],
        "within_deadline": found["within_deadline"],
        "steps": looks,
    }

"""The six verbs of every kind of fault, by name. Python3.9: it is shipped to hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Dict

from homeostat.drills.injectors import node_cpu, node_disk, node_freeze, node_kill, node_network, node_power
from homeostat.drills.injectors.permitted import Permitted
from homeostat.drills.injectors.record import Fault, Injector, Section, order_of

VERBS = ("probe", "plan", "inject", "prove", "undo", "verify_undone")
INJECTORS: Mapping[str, Injector] = {
    "node_kill": node_kill,
    "node_freeze": node_freeze,
    "node_cpu": node_cpu,
    "node_disk": node_disk,
    "node_network": node_network,
    "node_power": node_power,
}
_HARMLESS = ("undo", "verify_undone", "prove")
"""What goes on when the host permits nothing any more, or is halted."""


def run_verb(verb: str, record: Mapping[str, Any], host: Permitted) -> Section:
    """One verb of the fault in a record; its section. BadInput, NotAllowed, NotFound and others."""
    order = order_of({name: value for name, value in record.items() if name not in VERBS})
    sections = {each: record[each] for each in VERBS if isinstance(record.get(each), dict)}
    fault = Fault(order, host, sections)
    if verb not in _HARMLESS:
        fault.check_permitted()
    injector = INJECTORS[order.injector]
    verbs: Dict[str, Any] = {
        "probe": injector.probe,
        "plan": injector.plan,
        "inject": injector.inject,
        "prove": injector.prove,
        "undo": injector.undo,
        "verify_undone": injector.verify_undone,
    }
    section: Section = verbs[verb](fault)
    return section

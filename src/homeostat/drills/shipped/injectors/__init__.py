"""Injectors: kill or freeze processes, load processors or a disk, cut a network, switch a host off.

Each injector has six verbs, `probe plan inject prove undo verify_undone`, with plain JSON records in and
out, and runs as a short-lived process: `python -m homeostat.drills.node.injector VERB --plan FILE
--config node.yaml`, or `drills.shipped.main` on a host reached by SSH. Never a shell. `probe`, `plan` and
`inject` are refused when the host does not permit the injector or is halted; the others always run.
Undoing is the keeper's (`drills.shipped.keeper`): every step is on disk before its act. Standard library
only, python3.9: it is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Dict

from homeostat.drills.shipped.injectors import node_cpu, node_disk, node_network, node_power
from homeostat.drills.shipped.injectors.node_signals import FreezeInjector, KillInjector
from homeostat.drills.shipped.injectors.record import (
    InjectedFault,
    Injector,
    Section,
    read_order,
    undo,
    verify_undone,
)
from homeostat.drills.shipped.permissions import HostPermissions

VERBS = ("probe", "plan", "inject", "prove", "undo", "verify_undone")
INJECTORS: Mapping[str, Injector] = {
    "node_kill": KillInjector(),
    "node_freeze": FreezeInjector(),
    "node_cpu": node_cpu,
    "node_disk": node_disk,
    "node_network": node_network,
    "node_power": node_power,
}
_HARMLESS = ("undo", "verify_undone", "prove")
"""Verbs that go on when the host permits nothing any more, or is halted."""


def run_verb(verb: str, record: Mapping[str, Any], host: HostPermissions) -> Section:
    """One verb of the fault in a record; its section. BadInput, NotAllowed, NotFound and others."""
    order = read_order({name: value for name, value in record.items() if name not in VERBS})
    sections = {each: record[each] for each in VERBS if isinstance(record.get(each), dict)}
    fault = InjectedFault(order, host, sections)
    if verb not in _HARMLESS:
        fault.check_permitted()
    injector = INJECTORS[order.injector]
    verbs: Dict[str, Callable[[InjectedFault], Section]] = {
        "probe": injector.probe,
        "plan": injector.plan,
        "inject": injector.inject,
        "prove": injector.prove,
        "undo": node_power.undo if order.injector == "node_power" else undo,
        "verify_undone": verify_undone,
    }
    return verbs[verb](fault)

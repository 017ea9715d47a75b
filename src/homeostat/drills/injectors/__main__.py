"""`python -m homeostat.drills.injectors VERB --plan FILE --config node.yaml`: one verb of one fault.

FILE holds `{"fault", "injector", "deadline_s", "target"}`; the section of each verb that has run is added to
it, and printed. Exit codes: 0 done; 1 not able, not proven, or not undone; 2 bad input; 3 not now; 4 no such
process; 5 not allowed. Whoever runs `inject` is this short-lived process, never a longer one: the keeper ends
it when the deadline comes before it is done.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from homeostat.drills.injectors import node_cpu, node_disk, node_freeze, node_kill, node_network, node_power
from homeostat.drills.injectors.record import Fault, Injector, Order, Section
from homeostat.drills.node_settings import InjectorKind, read_drilled_node
from homeostat.kernel.config import checked
from homeostat.kernel.errors import BadInput
from homeostat.kernel.files import read_json, write_json
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, show_json

INJECTORS: Mapping[InjectorKind, Injector] = {
    InjectorKind.node_kill: node_kill,
    InjectorKind.node_freeze: node_freeze,
    InjectorKind.node_cpu: node_cpu,
    InjectorKind.node_disk: node_disk,
    InjectorKind.node_network: node_network,
    InjectorKind.node_power: node_power,
}
VERBS = ("probe", "plan", "inject", "prove", "undo", "verify_undone")
_GOOD = {"probe": "able", "prove": "proven", "undo": "undone", "verify_undone": "undone"}
_HARMLESS = ("undo", "verify_undone", "prove")
"""What goes on when node.yaml permits nothing any more, or the host is halted."""


def main() -> int:
    """Run one verb."""
    parser = argparse.ArgumentParser(prog="python -m homeostat.drills.injectors", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--plan", type=Path, required=True, help="the record of the fault")
    parser.add_argument("--config", type=Path, required=True, help="node.yaml")
    given = parser.parse_args()
    with errors_in_one_line():
        record = _record(given.plan)
        fault = _fault(record, given.config)
        if given.verb not in _HARMLESS:
            fault.check_permitted()
        section = _run(given.verb, fault)
        write_json(given.plan, {**record, given.verb: section})
    show_json(section)
    good = _GOOD.get(given.verb)
    return 0 if good is None or section[good] else BROKEN


def _run(verb: str, fault: Fault) -> Section:
    injector = INJECTORS[fault.order.injector]
    verbs = {
        "probe": injector.probe,
        "plan": injector.plan,
        "inject": injector.inject,
        "prove": injector.prove,
        "undo": injector.undo,
        "verify_undone": injector.verify_undone,
    }
    return verbs[verb](fault)


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if record is None:
        raise BadInput("--plan", str(path), "a file with the fault that is ordered")
    return record


def _fault(record: dict[str, Any], config: Path) -> Fault:
    order = checked(Order, {name: value for name, value in record.items() if name not in VERBS})
    sections = {verb: record[verb] for verb in VERBS if isinstance(record.get(verb), dict)}
    return Fault(order, read_drilled_node(config), sections)


if __name__ == "__main__":
    raise SystemExit(main())

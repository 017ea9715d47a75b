"""`python -m homeostat.drills.node.injector VERB --plan FILE --config node.yaml`: one verb of one fault.

FILE holds `{"fault", "injector", "deadline_s", "target"}`; the section of each verb that has run is added to
it, and printed. Exit codes: 0 done; 1 not able, not proven, or not undone; 2 bad input; 3 not now; 4 no such
process; 5 not allowed. Whoever runs `inject` is this short-lived process, never a longer one: the keeper ends
it when the deadline comes before it is done.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from homeostat.drills.node.settings import read_drilled_node
from homeostat.drills.shipped.injectors import VERBS, run_verb
from homeostat.kernel.errors import BadInput
from homeostat.kernel.files import read_json, write_json
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, show_json

_GOOD = {"probe": "able", "prove": "proven", "undo": "undone", "verify_undone": "undone"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m homeostat.drills.node.injector", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--plan", type=Path, required=True, help="the record of the fault")
    parser.add_argument("--config", type=Path, required=True, help="node.yaml")
    given = parser.parse_args()
    with errors_in_one_line():
        record = _record(given.plan)
        section = run_verb(given.verb, record, read_drilled_node(given.config).permitted())
        write_json(given.plan, {**record, given.verb: section})
    show_json(section)
    good = _GOOD.get(given.verb)
    return 0 if good is None or section[good] else BROKEN


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if record is None:
        raise BadInput("--plan", str(path), "a file with the fault that is ordered")
    return record


if __name__ == "__main__":
    raise SystemExit(main())

"""A supervisor with trivial children, for the tests to kill.

argv: state directory, then one JSON object a child: the fields of ChildSpec. `ready_file` becomes a check,
and so does `unwanted_file`: the child is not started again while that is there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from homeostat.kernel.errors import HomeostatError
from homeostat.lab.children import ChildSpec
from homeostat.lab.plan import StateDirectory
from homeostat.lab.supervisor import TerminalOutput
from homeostat.lab.up import run_as_owner


def spec(text: str) -> ChildSpec:
    told = json.loads(text)
    ready_file = told.pop("ready_file", None)
    unwanted_file = told.pop("unwanted_file", None)
    told["argv"] = tuple(told["argv"])
    told["after"] = tuple(told.get("after", ()))
    if ready_file is not None:
        told["ready"] = lambda _pid, path=Path(ready_file): path.exists()
    if unwanted_file is not None:
        told["wanted"] = lambda: not Path(unwanted_file).exists()
    return ChildSpec(**told)


def prepare(_screen: TerminalOutput) -> Sequence[ChildSpec]:
    return [spec(text) for text in sys.argv[2:]]


try:
    sys.exit(run_as_owner(StateDirectory(Path(sys.argv[1])), prepare, TerminalOutput(1)))
except HomeostatError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

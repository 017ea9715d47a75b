"""The switch of a host's power, for drills: `python -m homeostat.lab.power --dir D {off|on|state} HOST`.

`state` prints `on` or `off`; between the two, while the host is switched off and something of it still lives,
`going off`. Who switches is remembered by nobody: a fence and a drill use the same switch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import HomeostatError
from homeostat.lab.machines import is_on, of_lab, processes, switch_off, switch_on
from homeostat.lab.settings import StateDirectory


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="homeostat.lab.power", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("verb", choices=("off", "on", "state"))
    parser.add_argument("host")
    told = parser.parse_args()
    try:
        state, host = of_lab(told.dir, told.host)
        if told.verb == "off":
            switch_off(state, host)
        elif told.verb == "on":
            switch_on(state, host)
        print(power(state, host))
    except HomeostatError as error:
        raise SystemExit(str(error)) from error


def power(state: StateDirectory, host: HostId) -> str:
    """What the switch says of a host."""
    if is_on(state, host)():
        return "on"
    return "going off" if processes(state, host) else "off"


if __name__ == "__main__":
    main()

"""The lab's power switch: what `fleet.fencing` runs there. Exit 0 and one line are the receipt.

`python -m homeostat.lab.fence --dir D --host n2`. It switches the host off and looks that nothing of it
lives; the host stays off until `homeostat lab start-host`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from homeostat.kernel.errors import HomeostatError
from homeostat.lab.machines import of_lab, switch_off


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="homeostat.lab.fence", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--host", required=True)
    told = parser.parse_args()
    try:
        state, host = of_lab(told.dir, told.host)
        ended = switch_off(state, host)
    except HomeostatError as error:
        raise SystemExit(str(error)) from error
    print(f"host {host} is off: {len(ended)} processes had to be ended, none lives")


if __name__ == "__main__":
    main()

"""`homeostat up` with the stand-in for server and nodes. argv: state directory, perhaps `--renew-ports`."""

from __future__ import annotations

import sys
from pathlib import Path

from homeostat.kernel.errors import HomeostatError
from homeostat.lab.plan import UpSettings
from homeostat.lab.up import up

stand_in = str(Path(__file__).with_name("stand_in_program.py"))
settings = UpSettings(
    state_dir=Path(sys.argv[1]),
    renew_ports="--renew-ports" in sys.argv,
    program=(sys.executable, stand_in),
)
try:
    sys.exit(up(settings))
except HomeostatError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

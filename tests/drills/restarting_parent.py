"""Keeps one process up: `CONTROL_FILE COMMAND...`. CONTROL_FILE says after how many seconds, or `never`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from homeostat.kernel.processes import die_with_parent

control, argv = Path(sys.argv[1]), sys.argv[2:]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    subprocess.run(argv, preexec_fn=die_with_parent(), check=False)
    died_s = time.monotonic()
    while (said := control.read_text().strip()) == "never" or time.monotonic() - died_s < float(said):
        time.sleep(0.005)

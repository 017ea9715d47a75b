"""A tool that breaks something and renews it for ever: `CONFIG PLAN`. It is there to be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from homeostat.drills.node.settings import read_drilled_node
from homeostat.drills.shipped.keeper import orders

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us may ignore it
config, plan = Path(sys.argv[1]), Path(sys.argv[2])
node = read_drilled_node(config)
print("began", flush=True)
for verb in ("plan", "inject"):
    argv = [
        sys.executable,
        "-m",
        "homeostat.drills.node.injector",
        verb,
        "--plan",
        str(plan),
        "--config",
        str(config),
    ]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
while True:
    orders.renew(node.keeper, plan.stem)
    time.sleep(0.2)

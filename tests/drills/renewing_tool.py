"""A tool that breaks something and renews it for ever: `CONFIG PLAN`. It is there to be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from homeostat.drills import node_keeper as keeper
from homeostat.drills.node_settings import read_drilled_node

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us may ignore it
config, plan = Path(sys.argv[1]), Path(sys.argv[2])
node = read_drilled_node(config)
print("began", flush=True)
for verb in ("plan", "inject"):
    argv = [
        sys.executable,
        "-m",
        "homeostat.drills.injectors",
        verb,
        "--plan",
        str(plan),
        "--config",
        str(config),
    ]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
while True:
    keeper.renew(node.keeper, plan.stem)
    time.sleep(0.2)

"""The power switch of a small machine room: `ROOT {off|on|state} HOST`. A host is a process that listens.

`ROOT/HOST.json` holds its pid, start ticks and boot. While `ROOT/slow` exists, who switches off waits before
the act; `ROOT/broken` makes it fail, `ROOT/liar` makes it do nothing and say that it did.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from homeostat.drills.shipped.keeper import machine

root, verb, host = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
off = root / f"{host}.off"
if verb == "off":
    (root / "asked").write_text(f"{host}\n")
    while (root / "slow").exists():
        time.sleep(0.01)
    if (root / "broken").exists():
        raise SystemExit("the switch is broken")
    off.touch()
    if not (root / "liar").exists():
        machine.send(machine.Process(**json.loads((root / f"{host}.json").read_text())), signal.SIGKILL)
elif verb == "on":
    off.unlink(missing_ok=True)
print("off" if off.exists() else "on")

"""What is sent to a host that is reached by SSH: our own files, as one zip with a digest. No I/O over there.

Files and no archive that runs by itself: the undo keeper must start itself again by its own path, and a
person on that host must be able to run it. Everything in it is standard library, for python3.9.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from homeostat.drills.node_settings import shipped_words
from homeostat.drills.transports.node_boot import digest_of

PACKAGE = Path(__file__).parents[2]
BOOT = Path(__file__).with_name("node_boot.py")
MODULES = (
    "__init__.py",
    "drills/__init__.py",
    "drills/node_keeper/__init__.py",
    "drills/node_keeper/__main__.py",
    "drills/node_keeper/deadlines.py",
    "drills/node_keeper/folder.py",
    "drills/node_keeper/guard.py",
    "drills/node_keeper/keeping.py",
    "drills/node_keeper/machine.py",
    "drills/node_keeper/network.py",
    "drills/node_keeper/orders.py",
    "drills/node_keeper/program.py",
    "drills/node_keeper/programs.py",
    "drills/node_keeper/steps.py",
    "drills/node_keeper/undoing.py",
    "drills/injectors/__init__.py",
    "drills/injectors/block_device.py",
    "drills/injectors/cpu_share.py",
    "drills/injectors/network_tools.py",
    "drills/injectors/node_cpu.py",
    "drills/injectors/node_disk.py",
    "drills/injectors/node_freeze.py",
    "drills/injectors/node_holder.py",
    "drills/injectors/node_kill.py",
    "drills/injectors/node_matching.py",
    "drills/injectors/node_network.py",
    "drills/injectors/node_power.py",
    "drills/injectors/node_restarting.py",
    "drills/injectors/node_stressor.py",
    "drills/injectors/permitted.py",
    "drills/injectors/record.py",
    "drills/injectors/verbs.py",
    "drills/injectors/words.py",
    "drills/injectors/workers.py",
    "drills/transports/__init__.py",
    "drills/transports/node_boot.py",
    "drills/transports/node_shipped.py",
    "kernel/__init__.py",
    "kernel/errors.py",
    "kernel/presenting.py",
    "kernel/processes.py",
    "monitors/__init__.py",
    "monitors/node_process_watch.py",
    "monitors/sightings.py",
    "monitors/statements.py",
)
_MAIN = b"from homeostat.drills.transports.node_shipped import main\n\nraise SystemExit(main())\n"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Shipment:
    """A zip, and the digest of what is in it."""

    body: bytes
    digest: str


@cache
def shipment() -> Shipment:
    """The same bytes from the same files."""
    files = {f"homeostat/{name}": (PACKAGE / name).read_bytes() for name in MODULES}
    files["homeostat/drills/transports/profiles.json"] = json.dumps(shipped_words(), sort_keys=True).encode()
    files["__main__.py"] = _MAIN
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return Shipment(body.getvalue(), digest_of(files))

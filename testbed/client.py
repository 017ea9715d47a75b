"""The machine's own `openstack` command, for a monitor that watches the cloud as its users do.

A slim virtual environment in the cache: half the CPU of the one in the servers' environment, which loads
dozens of plugins. Its packages are the servers' wheels, so nothing is fetched for it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from testbed.commands import contained, run_logged
from testbed.places import Places
from testbed.preparing import made_once, openstack_words

PACKAGES = ("python-openstackclient", "python-heatclient")
"""`openstack stack list` comes from the second."""

Say = Callable[[str], None]


def prepare_client(places: Places, say: Say) -> None:
    """Make it when it is missing or of other wheels. CommandFailed quotes the log."""
    words = " ".join((*PACKAGES, openstack_words()))
    made_once(places.stamp("client"), words, places.client_environment, lambda: _make(places, say))


def _make(places: Places, say: Say) -> None:
    folder = places.client_environment
    if folder.exists():
        shutil.rmtree(folder)
    say(f"the machine's own openstack command into {folder}")
    install = [
        str(folder / "bin/pip"),
        "install",
        "--no-index",
        "--find-links",
        str(places.wheels),
        *PACKAGES,
    ]
    log = places.logs / "client.log"
    took_s = run_logged("a virtual environment", contained([sys.executable, "-m", "venv", str(folder)]), log)
    took_s += run_logged("the openstack command", contained(install), log)
    took_s += run_logged("a first call", [str(places.client), "--version"], log)
    say(f"the machine's own openstack command took {took_s:.0f} s")

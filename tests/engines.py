"""The real engines that tests run against: the way each is found, and the way to get it.

A test names its engines with the mark `needs(...)`, or calls `need(...)` when only some of its cases do. What
is not there is left out and counted (conftest.py); REQUIRE_ENGINES=all makes it fail instead.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from homeostat.fleet.probes import icmp_permitted

CHROMIUM = "/usr/bin/chromium"
SSHD = "/usr/sbin/sshd"
DUMMY_AGENT = Path("/usr/lib/ocf/resource.d/heartbeat/Dummy")


@dataclass(frozen=True, slots=True)
class Engine:
    """A thing that a minimal machine has not. `optional`: REQUIRE_ENGINES=all does not demand it."""

    is_there: Callable[[], bool]
    get: str
    optional: bool = False


def postgresql_binaries() -> Path | None:
    """The folder with the newest initdb of this machine, None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


def _programs(*names: str) -> Callable[[], bool]:
    return lambda: all(map(shutil.which, names))


def _mounts() -> bool:
    """Tried in a mount namespace of its own, so that nothing stays."""
    argv = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(argv, capture_output=True, check=False).returncode == 0


ENGINES: dict[str, Engine] = {
    "postgresql": Engine(lambda: postgresql_binaries() is not None, "apt-get install postgresql"),
    "chromium": Engine(_programs(CHROMIUM), "apt-get install chromium"),
    "prometheus": Engine(_programs("prometheus"), "apt-get install prometheus"),
    "alertmanager": Engine(_programs("prometheus-alertmanager"), "apt-get install prometheus-alertmanager"),
    "ocf": Engine(DUMMY_AGENT.exists, "apt-get install resource-agents"),
    "ocf-tester": Engine(_programs("ocf-tester", "xmllint"), "apt-get install resource-agents libxml2-utils"),
    "sshd": Engine(_programs(SSHD, "ssh", "ssh-keygen"), "apt-get install openssh-server openssh-client"),
    "ssh": Engine(_programs("ssh", "ssh-keygen"), "apt-get install openssh-client"),
    "sudo": Engine(_programs("sudo"), "apt-get install sudo"),
    "nftables": Engine(_programs("nft"), "apt-get install nftables"),
    "iptables": Engine(_programs("iptables"), "apt-get install iptables"),
    "iproute2": Engine(_programs("ip", "tc"), "apt-get install iproute2"),
    "openssl": Engine(_programs("openssl"), "apt-get install openssl"),
    "cc": Engine(_programs("cc"), "apt-get install gcc libc6-dev"),
    "root": Engine(lambda: os.geteuid() == 0, "run the tests as root"),
    "run-folder": Engine(lambda: os.access("/run", os.W_OK), "run the tests as root"),
    "shared-memory": Engine(lambda: os.access("/dev/shm", os.W_OK), "mount a tmpfs on /dev/shm, for all"),
    "mount": Engine(_mounts, "run the tests as root where mounting is permitted", optional=True),
    "loop-disk": Engine(
        lambda: os.geteuid() == 0 and all(map(shutil.which, ("mkfs.ext4", "losetup", "mount"))),
        "apt-get install e2fsprogs mount, and run the tests as root with a loop device",
        optional=True,
    ),
    "icmp": Engine(
        lambda: icmp_permitted()[0] is not None,
        "run the tests as root, or with this group in net.ipv4.ping_group_range",
        optional=True,
    ),
    "control-group": Engine(lambda: True, "run the tests as root with control groups", optional=True),
    "open-folder": Engine(lambda: True, "a temporary folder that other users may enter", optional=True),
    "disk-device": Engine(lambda: True, "a temporary folder on a disk with a device", optional=True),
    "cloud": Engine(
        lambda: "HOMEOSTAT_CLOUDS" in os.environ,
        "set HOMEOSTAT_CLOUDS to the clouds.yaml of a real cloud (make testbed)",
        optional=True,
    ),
    "other-pythons": Engine(lambda: True, "install python3.9 to python3.13 beside this one", optional=True),
}
_LEFT_OUT = "left out, needs: "


@functools.cache
def is_there(name: str) -> bool:
    """True when this machine has the engine."""
    return ENGINES[name].is_there()


def needs(*names: str) -> pytest.MarkDecorator:
    """The mark of a test, of a case or of a file that runs against these engines."""
    unknown = set(names) - ENGINES.keys()
    assert not unknown, f"not in tests/engines.py: {', '.join(sorted(unknown))}"
    return pytest.mark.engine(*names)


def need(*names: str) -> None:
    """Leave this test out unless all of them are there; fail with REQUIRE_ENGINES=all."""
    missing = [name for name in names if not is_there(name)]
    if missing:
        leave_out(*missing)


def leave_out(*names: str, why: str = "") -> NoReturn:
    """This test cannot run here, for these engines cannot be had or do not work."""
    demanded = [name for name in names if not ENGINES[name].optional]
    if demanded and os.environ.get("REQUIRE_ENGINES") == "all":
        ways = "; ".join(f"{name}: {ENGINES[name].get}" for name in demanded)
        pytest.fail(f"REQUIRE_ENGINES=all, but this is missing: {ways}", pytrace=False)
    pytest.skip(_LEFT_OUT + ", ".join(names) + (f" ({why})" if why else ""))


def summary(reasons: Iterable[str]) -> list[str]:
    """Lines that say how many tests were left out for which engine, and the way to get it."""
    total, counted, others = 0, Counter[str](), 0
    for reason in reasons:
        total += 1
        found = re.search(re.escape(_LEFT_OUT) + r"([a-z0-9, -]+)", reason)
        if found is None:
            others += 1
            continue
        counted.update(name.strip() for name in found[1].split(","))
    lines = [f"{number:>5}  {name:<14} {ENGINES[name].get}" for name, number in counted.most_common()]
    if others:
        lines.append(f"{others:>5}  {'other reasons':<14} see the lines SKIPPED above")
    said = f"Tests left out: {total} (one that needs two engines is counted at both)"
    return [said, *lines] if total else []


POSTGRESQL = pytest.param("postgresql", marks=needs("postgresql"))
"""The case of a test that runs on PostgreSQL."""


# ---- which tests name an engine ----

_NAMES = re.compile(
    r"postgresql|chromium|browser|prometheus|alertmanager|ocf|nft\b|iptables|iproute|\btc\b|sshd|\bssh\b|sudo|openssl"
    r"|unshare|setpriv|\bmount|geteuid|getuid|(?<![\w.])root\b|icmp|DUMMY|is_public",
    re.IGNORECASE,
)


def names_an_engine(marked: bool, text: str) -> bool:
    """True for a test that is marked with an engine or whose text names one, a browser or root."""
    return marked or _NAMES.search(text) is not None

"""The file system under all nodes: Debian packages, and OpenStack from PyPI in one virtual environment.

Made once and kept. Each stage has a stamp with what it was made of; a stage whose stamp differs is made
again. A stage that was cut off has no stamp. Nothing that a package brings is started (policy-rc.d), and
every stage runs contained, so nothing could stay.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from testbed.commands import contained, output_of, run_logged, succeeds
from testbed.failures import TestbedFailed
from testbed.places import Places

SUITE = "bookworm"
PACKAGES = (
    *("mariadb-server", "rabbitmq-server", "memcached", "haproxy", "keepalived"),
    *("openssh-server", "supervisor", "python3", "python3-venv"),
    *("iproute2", "iptables", "nftables", "iputils-ping", "procps", "psmisc", "ca-certificates"),
)
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
VENV = "/opt/openstack"
"""Inside every node."""

_NEVER_START = "#!/bin/sh\nexit 101\n"
_IN_ROOT = """
set -e
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sysfs "$1/sys"
mount --rbind /dev "$1/dev"
mkdir -p "$1/mnt/wheels" && mount --bind "$2" "$1/mnt/wheels"
root=$1; shift 2
exec chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy=$http_proxy} "$@"
"""

Say = Callable[[str], None]


def prepare_root(places: Places, say: Say) -> None:
    """Make what is missing of the shared root. TestbedFailed names the stage and quotes its log."""
    debian, openstack = _debian_words(), openstack_words()
    made_once(places.stamp("debian"), debian, places.root, lambda: _debian(places, say))
    made_once(places.stamp("wheels"), openstack, places.wheels, lambda: _wheels(places, say))
    made_once(places.stamp("openstack"), openstack, places.root, lambda: _openstack(places, say))


def root_words() -> str:
    """What the shared root is made of, in short: a prepared disk belongs to exactly one."""
    return hashlib.sha256((_debian_words() + openstack_words()).encode()).hexdigest()[:12]


def _debian_words() -> str:
    return " ".join((SUITE, *PACKAGES))


def openstack_words() -> str:
    """What is installed from PyPI, in short."""
    return hashlib.sha256("\n".join(_pins()).encode()).hexdigest()


def _pins() -> list[str]:
    """`name==version` of everything."""
    return sorted(line.split()[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line)


def made_once(stamp: Path, words: str, folder: Path, make: Callable[[], None]) -> None:
    """Call `make` unless its result stands in `folder` under the same words. Cut off, it leaves no stamp."""
    if stamp.exists() and stamp.read_text() == words and folder.exists():
        return
    stamp.unlink(missing_ok=True)
    make()
    stamp.write_text(words)


def _debian(places: Places, say: Say) -> None:
    if shutil.which("debootstrap") is None:
        raise TestbedFailed("debootstrap: not found; install it (apt-get install debootstrap)")
    for made in (places.root, places.stamp("openstack")):
        shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
    base = places.unfinished_root
    if base.exists():
        shutil.rmtree(base)
    say(f"root: Debian {SUITE} by debootstrap (about a minute)")
    mirror = _mirror()
    argv = ["debootstrap", "--variant=minbase", SUITE, str(base), *([mirror] if mirror else [])]
    took_s = run_logged("debootstrap", contained(argv), places.logs / "debootstrap.log")
    say(f"root: {len(PACKAGES)} packages and what they need (base took {took_s:.0f} s)")
    never = base / "usr/sbin/policy-rc.d"
    never.write_text(_NEVER_START)
    never.chmod(0o755)
    shutil.copyfile("/etc/resolv.conf", base / "etc/resolv.conf")
    log = places.logs / "packages.log"
    inside = "apt-get update && apt-get install -y --no-install-recommends " + " ".join(PACKAGES)
    took_s = run_logged("Debian packages", in_root(places, base, ["sh", "-c", inside]), log)
    output_of(in_root(places, base, ["apt-get", "clean"]))
    base.rename(places.root)
    say(f"root: packages took {took_s:.0f} s")


def _mirror() -> str | None:
    """The mirror that this machine uses itself, when it is a Debian of that suite."""
    listed = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)"]
    if not succeeds(listed):
        return None
    for line in output_of(listed).splitlines():
        uri, _, rest = line.partition(" ")
        if rest == f"{SUITE} main":
            return uri
    return None


def _wheels(places: Places, say: Say) -> None:
    """Fetched by the machine's own pip, with its settings. Those of another set would be two of a kind."""
    wanted = (places.root / "usr/bin/python3").readlink().name
    mine = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if wanted != mine:
        raise TestbedFailed(
            f"python: this is {mine}, but wheels are needed for the {wanted} of Debian {SUITE}; "
            f"make the virtual environment with {wanted}"
        )
    if places.wheels.exists():
        shutil.rmtree(places.wheels)
    say("root: wheels from PyPI (about a minute)")
    fetch = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--require-hashes"]
    fetch += ["--requirement", str(REQUIREMENTS), "--wheel-dir", str(places.wheels)]
    took_s = run_logged("wheels", contained(fetch), places.logs / "wheels.log")
    say(f"root: wheels took {took_s:.0f} s")


def _openstack(places: Places, say: Say) -> None:
    """The virtual environment, without any registry."""
    say(f"root: OpenStack into {VENV} (about a minute)")
    inside = (
        f"rm -rf {VENV} && python3 -m venv {VENV} && {VENV}/bin/pip install --no-index --no-deps "
        f"--no-compile --find-links /mnt/wheels $(ls /mnt/wheels/*.whl)"
    )
    log = places.logs / "openstack.log"
    took_s = run_logged("OpenStack", in_root(places, places.root, ["sh", "-c", inside]), log)
    compiled = ["sh", "-c", f"{VENV}/bin/python -m compileall -q -j 0 {VENV}/lib || true"]
    took_s += run_logged("byte code", in_root(places, places.root, compiled), places.logs / "compile.log")
    say(f"root: OpenStack took {took_s:.0f} s")


def in_root(places: Places, root: Path, argv: list[str]) -> list[str]:
    """A command inside the root while it is made, contained, with the wheels at /mnt/wheels."""
    places.wheels.mkdir(parents=True, exist_ok=True)
    return contained(["sh", "-c", _IN_ROOT, "in-root", str(root), str(places.wheels), *argv])

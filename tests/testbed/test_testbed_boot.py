"""The cloud really boots, answers, and leaves the machine as it was, also when its start is killed half-way.

As root, minutes: `make testbed-test`. HOMEOSTAT_TESTBED_STATE: the state directory, whose cache is used.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.places import CGROUP, DEFAULT_STATE, Places
from testbed.plan import CONTROLLERS, NODES
from testbed.services import APIS, VENV
from testbed.teardown import leftovers

pytestmark = [pytest.mark.openstack, pytest.mark.slow]

PLACES = Places(Path(os.environ.get("HOMEOSTAT_TESTBED_STATE", str(DEFAULT_STATE))))
TESTBED = [sys.executable, "-m", "testbed"]
REPOSITORY = Path(__file__).parents[2]
_FIRST_UP_WITHIN_S = 1_500.0
_HALF_WAY_WITHIN_S = 900.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is on the machine, looked at without the testbed's own code."""

    mounts: frozenset[str]
    loops: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    cgroups: frozenset[str]


def _lines(*argv: str) -> frozenset[str]:
    return frozenset(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines())


def look() -> Seen:
    """Only what has the state directory or a name of the testbed in it: others work on this machine too."""
    state = str(PLACES.state)
    named = ("hstb", CGROUP)
    folders = (path for path in Path("/sys/fs/cgroup").glob("*/*") if path.is_dir())
    top = (path for path in Path("/sys/fs/cgroup").glob("*") if path.is_dir())
    return Seen(
        mounts=frozenset(
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if state in line
        ),
        loops=frozenset(line for line in _lines("losetup", "--list") if state in line),
        namespaces=frozenset(line for line in _lines("ip", "netns", "list") if line.startswith(named)),
        links=frozenset(line for line in _lines("ip", "-oneline", "link") if "hstb" in line),
        cgroups=frozenset(str(path) for path in (*folders, *top) if path.name.startswith(named)),
    )


def processes_of(namespaces: set[int]) -> list[int]:
    """Every process of the machine in one of these network, PID or mount namespaces."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                inside = {(folder / "ns" / kind).stat().st_ino for kind in ("net", "pid", "mnt")}
            except OSError:
                continue
            if inside & namespaces:
                found.append(int(folder.name))
    return found


def namespaces_of(pids: list[int]) -> set[int]:
    """The namespaces of these processes that are not the machine's."""
    found = set()
    for pid in pids:
        for kind in ("net", "pid", "mnt"):
            try:
                found.add(Path(f"/proc/{pid}/ns/{kind}").stat().st_ino)
            except OSError:
                continue
    return found - {Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("net", "pid", "mnt")}


def run(*words: str, within_s: float = _FIRST_UP_WITHIN_S) -> subprocess.CompletedProcess[str]:
    """A command of the testbed, with its own state directory."""
    argv = [*TESTBED, *words, "--state", str(PLACES.state)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=within_s, cwd=REPOSITORY)


def inside(node: str, *command: str) -> str:
    """Over SSH, as a drill would."""
    argv = ["ssh", "-F", str(PLACES.access / "ssh_config"), node, *command]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test begins and ends with a machine without a testbed. Nobody boots a cloud by accident."""
    if os.geteuid() != 0 or request.config.option.markexpr != "openstack":
        pytest.skip("as root: make testbed-test")
    assert run("down").returncode == 0
    before = look()
    assert before == Seen(*[frozenset()] * 5)
    yield
    ended = run("down")
    assert ended.returncode == 0, ended.stderr
    assert look() == before


def _until_half_way(up: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _HALF_WAY_WITHIN_S
    while time.monotonic() < until:
        left = leftovers(PLACES)
        if (
            f"hstb-{CONTROLLERS[1].name}" in left.namespaces
            and len(left.loops) > 1
            and len(left.processes) > 10
        ):
            return
        assert up.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    raise AssertionError(f"no second controller within {_HALF_WAY_WITHIN_S:.0f} s")


def test_a_start_that_was_killed_leaves_nothing_after_down() -> None:
    up = subprocess.Popen([*TESTBED, "up", "--state", str(PLACES.state)], cwd=REPOSITORY)
    try:
        _until_half_way(up)
    finally:
        up.send_signal(signal.SIGKILL)
        up.wait()
    left = leftovers(PLACES)
    assert left.processes and left.loops and left.namespaces and left.links
    inodes = namespaces_of(left.processes)
    assert processes_of(inodes)
    ended = run("down")
    assert ended.returncode == 0, ended.stderr
    assert processes_of(inodes) == []


def test_the_cloud_boots_answers_and_leaves_nothing() -> None:
    began = time.monotonic()
    started = run("up")
    print(started.stdout)
    assert started.returncode == 0, started.stderr
    print(f"up took {time.monotonic() - began:.0f} s")
    state: dict[str, Any] = json.loads(run("status").stdout)
    assert state["up"]
    assert len(state["apis"]) == len(APIS) * len(CONTROLLERS)
    for node in NODES:
        assert inside(node.name, "hostname").strip() == node.name
        assert inside(node.name, "cat", "/proc/1/comm").strip() == "supervisord"
    clouds = (PLACES.access / "clouds.yaml").read_text()
    ask = f"{VENV}/bin/openstack --os-cloud testbed token issue -f json"
    script = f"umask 077; cat > /root/clouds.yaml; cd /root; {ask}"
    argv = ["ssh", "-F", str(PLACES.access / "ssh_config"), "ctl1", script]
    issued = subprocess.run(argv, input=clouds, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(issued.stdout)["id"].startswith("gAAAA")
    inodes = namespaces_of(state["on_this_machine"]["processes"])
    ended = run("down")
    assert ended.returncode == 0, ended.stderr
    assert processes_of(inodes) == []
    assert not PLACES.run.exists()


def _evidence(to: Path, *, runs: int) -> list[str]:
    words = ["evidence", "--only", "keystone-down", "--runs", str(runs), "--to", str(to)]
    return [*TESTBED, *words, "--state", str(PLACES.state)]


def test_evidence_is_made_once_and_not_again(tmp_path: Path) -> None:
    made = subprocess.run(
        _evidence(tmp_path / "ha", runs=1), capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    print(made.stdout, made.stderr)
    assert made.returncode == 0, made.stderr
    report = json.loads((tmp_path / "ha/keystone-down/1.1.json").read_text())
    assert (report["verdict"], report["victims"]) == ("PASS", ["ctl1"])
    assert "[1.1](ha/keystone-down/1.1.html)" in (tmp_path / "ha.md").read_text()
    again = subprocess.run(
        _evidence(tmp_path / "ha", runs=1), capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert again.returncode == 0, again.stderr
    assert "0 runs are left" in again.stdout and "starts" not in again.stdout


def test_evidence_that_is_told_to_end_ends_what_it_started(tmp_path: Path) -> None:
    argv = _evidence(tmp_path / "ha", runs=1)
    made = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert made.stderr is not None
    said = next((line for line in made.stderr if "injected" in line), "")
    assert said, "the drill never broke anything"
    made.terminate()
    rest = made.stderr.read()
    made.wait(_HALF_WAY_WITHIN_S)
    assert "ABORTED" in rest
    assert made.returncode != 0
    assert not list((tmp_path / "ha").glob("*/*.json"))

"""A process watch over a real SSH server: a monitor like any other, its stamps from the watched host."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from real_sshd import SshHost, needs_sshd, ssh_host

from homeostat.drills.shipped.keeper import machine
from homeostat.drills.site import SshAccess
from homeostat.drills.transports.remote import SshTransport
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.shipped.statements import ProcessChange, read_sightings
from homeostat.monitors.supervision import MonitorLoss, Monitors
from homeostat.monitors.verdicts import ProcessPlan, ProcessState, process_outage

WITHIN_S = 30.0
VICTIM = f"hd-{uuid4().hex}"
"""Of this run alone: whoever else drills on this machine must not be hit."""
pytestmark = needs_sshd


@pytest.fixture
async def ssh(tmp_path: Path) -> AsyncIterator[SshHost]:
    """A host that permits everything."""
    with ssh_host(tmp_path) as host:
        yield host
        await host.transport.close()


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not check():  # noqa: ASYNC110  a file that grows has no event
            await asyncio.sleep(0.01)


def config(folder: Path) -> WatchConfig:
    return WatchConfig("processes", f"^{VICTIM} 600$", str(folder / "sightings.jsonl"), 10.0)


def seen(folder: Path, change: ProcessChange) -> int:
    return sum(each.change is change for each in read_sightings(folder / "sightings.jsonl"))


@pytest.mark.seed("000 process outage time")
async def test_death_and_birth_are_seen_over_ssh(ssh: SshHost, tmp_path: Path) -> None:
    victim = ssh.broken.victim(VICTIM)
    command = ssh.transport.watch(config(tmp_path), tmp_path)
    assert command.config_file.stat().st_mode & 0o777 == 0o600
    async with Monitors([command]) as monitors:
        assert await monitors.ready(WITHIN_S), monitors.lost
        record = ssh.order("node_kill", {"command_line": f"{VICTIM} 600"})
        for verb in ("plan", "inject"):
            record = await ssh.transport.verb(verb, record)
        victim.wait()
        dead_ns = machine.now_ns()
        await until(lambda: seen(tmp_path, ProcessChange.GONE))
        born_before_ns = machine.now_ns()
        again = ssh.broken.victim(VICTIM)
        born_after_ns = machine.now_ns()
        await until(lambda: seen(tmp_path, ProcessChange.PRESENT) == 2)
        stable_ns = machine.now_ns() + 200_000_000
        await until(lambda: machine.now_ns() > stable_ns)
        (found,) = await monitors.stop()
    assert found.lost is None and found.ready is not None and found.ended is not None
    before_ns = record["inject"]["before_ns"]
    outage = process_outage(found.sightings, ProcessPlan(before_ns, found.ended.at_ns, 100_000_000))
    assert outage.state is ProcessState.RECOVERED and outage.upper_ms is not None
    assert [each.pid for each in outage.died] == [victim.pid]
    assert [each.pid for each in outage.recovered] == [again.pid]
    assert outage.lower_ms <= (born_after_ns - before_ns) / 1e6
    assert outage.upper_ms >= (born_before_ns - dead_ns) / 1e6
    assert machine.identify(found.ready.pid) is None
    assert not command.config_file.exists()
    await ssh.transport.heal()


async def started(ssh: SshHost, tmp_path: Path, monitors: Monitors) -> int:
    """The pid of the watch on that host, once it is ready."""
    assert await monitors.ready(WITHIN_S), monitors.lost
    (ours,) = monitors.identities.values()
    mine = {ours.pid, *ssh.server.sessions()}
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    here = str(ssh.state / "shipped").encode()
    found = [pid for pid in pids if here in _words(pid) and b"watch" in _words(pid) and pid not in mine]
    return found[-1]


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.seed("order a monitor that dies is lost, over SSH too")
@pytest.mark.parametrize("who", [pytest.param("watch", marks=pytest.mark.slow), "connection"])
async def test_a_watch_that_dies_is_lost(ssh: SshHost, tmp_path: Path, who: str) -> None:
    ssh.broken.victim(VICTIM)
    async with Monitors([ssh.transport.watch(config(tmp_path), tmp_path)]) as monitors:
        there = await started(ssh, tmp_path, monitors)
        for pid in [there] if who == "watch" else ssh.server.sessions():
            os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(monitors.lost_one.wait(), WITHIN_S)
        assert monitors.lost == {"processes": MonitorLoss.DIED}
    await until(lambda: machine.identify(there) is None)


async def test_a_watch_does_not_outlive_who_asked_for_it(ssh: SshHost, tmp_path: Path) -> None:
    ssh.broken.victim(VICTIM)
    async with Monitors([ssh.transport.watch(config(tmp_path), tmp_path)]) as monitors:
        there = await started(ssh, tmp_path, monitors)
        (ours,) = monitors.identities.values()
        os.kill(ours.pid, signal.SIGKILL)
        await until(lambda: machine.identify(there) is None)


async def test_a_watch_that_does_not_get_there_is_lost_with_a_line(
    ssh: SshHost, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ssh.permit(enabled=False)
    async with Monitors([ssh.transport.watch(config(tmp_path), tmp_path)]) as monitors:
        assert not await monitors.ready(WITHIN_S)
        assert monitors.lost == {"processes": MonitorLoss.DIED}
    assert "homeostat: c1: drills.enabled is false" in capfd.readouterr().err


def test_what_is_watched_is_no_argument(tmp_path: Path) -> None:
    """A pattern among the arguments of our own processes would match them."""
    transport = SshTransport("c1", SshAccess(address="10.0.0.1", user="ops"))
    command = transport.watch(config(tmp_path), tmp_path)
    assert not any(VICTIM in word for word in command.argv)
    given = json.loads(command.config_file.read_text())
    assert given["watch"]["cmdline"] == f"^{VICTIM} 600$" and given["ssh"]["address"] == "10.0.0.1"

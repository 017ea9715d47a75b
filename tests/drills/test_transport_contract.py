"""What a drill asks of a host is the same however it is reached: on this machine, by SSH, by its node."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from broken_host import OURS, BrokenHost, broken_host, state, until
from drilled_node import Ground, real_ground
from real_sshd import needs_sshd, ssh_host

from homeostat.drills.shipped.keeper import machine, orders
from homeostat.drills.transports.connections import LocalTransport
from homeostat.drills.transports.port import HostTransport, Verb
from homeostat.kernel.errors import GiveUp, NotAllowed, NotFound
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.shipped.statements import ProcessChange, read_sightings
from homeostat.monitors.supervision import Monitors
from homeostat.monitors.verdicts import ProcessPlan, ProcessState, process_outage
from real_parts import eventually

LISTENER = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
input()
"""
VICTIM = f"{OURS}-contract"
PATTERN = {"command_line": f"^{VICTIM} 600$"}
FORWARD: tuple[Verb, ...] = ("probe", "plan", "inject", "prove")
BACK: tuple[Verb, ...] = ("undo", "verify_undone")


@dataclass
class Reached:
    """A host, how it is reached, what it permits, and a new fault of a run that may break it."""

    host: BrokenHost
    transport: HostTransport
    permit: Callable[..., None]
    order: Callable[[str, dict[str, Any]], dict[str, Any]]


def _local(host: BrokenHost, path: Path) -> Reached:
    def order(injector: str, target: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = json.loads(host.order(injector, target).read_text())
        return given

    return Reached(host, LocalTransport("n1", host.config, path / "orders"), host.permit, order)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with real_ground(tmp_path_factory.mktemp("ground")) as made:
        yield made


EVERY_WAY = ("local", pytest.param("ssh", marks=needs_sshd), "node")
IN_SHORT = (
    "local",
    pytest.param("ssh", marks=[needs_sshd, pytest.mark.slow]),
    pytest.param("node", marks=pytest.mark.slow),
)
"""For what test_ssh_transport.py and test_node_transport.py show of their ways, too."""
in_short = pytest.mark.parametrize("there", IN_SHORT, indirect=True)


@pytest.fixture(params=EVERY_WAY)
async def there(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reached]:
    if request.param == "local":
        with broken_host(tmp_path) as host:
            yield _local(host, tmp_path)
    elif request.param == "ssh":
        with ssh_host(tmp_path) as ssh:
            yield Reached(ssh.broken, ssh.transport, ssh.permit, ssh.order)
            await ssh.transport.close()
    else:
        with request.getfixturevalue("ground").host(tmp_path) as node:
            yield Reached(node, node.transport(), node.permit, node.announced)


@pytest.mark.seed("order one contract for every way to a host")
async def test_a_fault_from_its_plan_to_its_undo(there: Reached) -> None:
    victim, transport = there.host.victim(VICTIM), there.transport
    record = there.order("node_freeze", PATTERN)
    began_ns = machine.now_ns()
    for verb in FORWARD:
        record = await transport.verb(verb, record)
    assert record["prove"]["proven"] and state(victim) == "T"
    assert began_ns < record["inject"]["before_ns"] <= record["inject"]["after_ns"] < machine.now_ns()
    assert (await transport.status())["open"] == [record["fault"]]
    await transport.renew(record["fault"])
    assert [each["undone"] for each in await transport.heal()] == [True]
    for verb in BACK:
        record = await transport.verb(verb, record)
    assert record["verify_undone"]["undone"] and state(victim) != "T"
    with pytest.raises(GiveUp):
        await transport.renew(record["fault"])
    assert await transport.heal() == []


@in_short
async def test_a_whole_set_is_killed_and_nobody_else(there: Reached) -> None:
    victims = [there.host.victim(VICTIM) for _ in range(2)]
    bystander = there.host.victim(f"{VICTIM}-not")
    record = there.order("node_kill", PATTERN)
    for verb in FORWARD:
        record = await there.transport.verb(verb, record)
    assert {each["pid"] for each in record["plan"]["matched"]} == {victim.pid for victim in victims}
    assert record["prove"]["proven"] and record["inject"]["signalled"] == 2
    assert [victim.wait(10) for victim in victims] == [-signal.SIGKILL] * 2
    assert bystander.poll() is None


async def test_the_clock_is_the_hosts_between_ours(there: Reached) -> None:
    before_ns, there_ns, after_ns = machine.now_ns(), await there.transport.clock_ns(), machine.now_ns()
    assert before_ns < there_ns < after_ns


ERRORS: tuple[tuple[dict[str, Any], dict[str, Any], type[Exception], str], ...] = (
    ({}, {"command_line": "nobody at all"}, NotFound, "nothing would be hit"),
    ({"enabled": False}, PATTERN, NotAllowed, "drills.enabled is false"),
    ({"injectors": ["node_cpu"]}, PATTERN, NotAllowed, "allows node_cpu; not node_kill"),
    ({}, {"profile": "unheard-of"}, GiveUp, "unheard-of"),
)


@pytest.mark.seed("order errors keep their kind, however a host is reached")
async def test_errors_are_what_the_host_means(there: Reached) -> None:
    await there.transport.clock_ns()  # over SSH nothing is sent to a host that permits nothing
    for permitted, target, error, words in ERRORS:
        there.permit()
        record = there.order("node_kill", target)
        there.permit(**permitted)
        with pytest.raises(error, match=words):
            await there.transport.verb("plan", record)


@in_short
async def test_a_halted_host_refuses(there: Reached) -> None:
    victim = there.host.victim(VICTIM)
    record = await there.transport.verb("plan", there.order("node_kill", PATTERN))
    orders.halt(there.host.keeper)
    assert (await there.transport.status())["halted"]
    with pytest.raises(NotAllowed, match="halted"):
        await there.transport.verb("inject", record)
    assert victim.poll() is None


@in_short
async def test_who_listens_holds_the_address(there: Reached) -> None:
    listener = there.host.start(sys.executable, "-c", LISTENER, "held", stdout=-1)
    assert listener.stdout is not None
    port = int(until(listener.stdout.readline, "the port"))
    there.host.victim(VICTIM)
    there.permit(profiles={"held": {"command_line": ".* held$"}, "beside": PATTERN})
    endpoint = f"tcp://127.0.0.1:{port}"
    assert await there.transport.holds("held", "listens", endpoint)
    assert not await there.transport.holds("beside", "listens", endpoint)
    with socket.create_server(("127.0.0.1", 0)) as mine:
        assert not await there.transport.holds("held", "listens", f"tcp://127.0.0.1:{mine.getsockname()[1]}")
    assert await there.transport.holds("held", "address", endpoint)
    assert not await there.transport.holds("held", "address", "http://203.0.113.7:80")


@pytest.mark.seed("000 process outage time")
async def test_death_and_birth_are_seen_with_the_hosts_own_stamps(there: Reached, tmp_path: Path) -> None:
    victim = there.host.victim(VICTIM)
    config = WatchConfig("processes", PATTERN["command_line"], str(tmp_path / "sightings.jsonl"), 10.0)
    command = there.transport.watch(config, tmp_path)
    assert not any(VICTIM in word for word in command.argv)
    assert command.config_file.stat().st_mode & 0o777 == 0o600

    def seen(change: ProcessChange) -> int:
        return sum(each.change is change for each in read_sightings(Path(config.sightings_file)))

    async with Monitors([command]) as monitors:
        assert await monitors.ready(30), monitors.lost
        record = there.order("node_kill", PATTERN)
        for verb in FORWARD:
            record = await there.transport.verb(verb, record)
        victim.wait()
        await eventually(lambda: seen(ProcessChange.GONE))
        again = there.host.victim(VICTIM)
        born_ns = machine.now_ns()
        await eventually(lambda: seen(ProcessChange.PRESENT) == 2)
        await eventually(lambda: machine.now_ns() > born_ns + 300_000_000)
        (found,) = await monitors.stop()
    assert found.lost is None and found.ready is not None and found.ended is not None
    before_ns = record["inject"]["before_ns"]
    outage = process_outage(found.sightings, ProcessPlan(before_ns, found.ended.at_ns, 100_000_000))
    assert outage.state is ProcessState.RECOVERED
    assert [each.pid for each in outage.died] == [victim.pid]
    assert [each.pid for each in outage.recovered] == [again.pid]
    assert machine.identify(found.ready.pid) is None
    assert not command.config_file.exists()

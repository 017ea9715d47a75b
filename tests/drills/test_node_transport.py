"""Hosts that are reached by their node process: who may, what is done once, what ends when somebody dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broken_host import OURS, state, until
from drilled_node import Ground, NodeHost, real_ground

from drill_reports import report
from homeostat.drills.shipped.keeper import machine
from homeostat.drills.transports.port import Verb
from homeostat.drills.transports.remote import NodeTransport
from homeostat.kernel.client import Client
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed, NotFound, RetryLater
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorLoss, Monitors
from real_parts import eventually

TOOL = Path(__file__).with_name("node_tool.py")
VICTIM = f"{OURS}-by-node"
PATTERN = {"command_line": f"^{VICTIM} 600$"}
PLANNED: tuple[Verb, ...] = ("probe", "plan")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with real_ground(tmp_path_factory.mktemp("ground")) as made:
        yield made


@pytest.fixture
def node(tmp_path: Path, ground: Ground) -> Iterator[NodeHost]:
    with ground.host(tmp_path) as host:
        yield host


def asked(node: NodeHost, question: str, words: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A question under a name of our choice, until it is answered."""

    def answer() -> dict[str, Any] | None:
        body = {"question": question, "words": words, **more}
        told: dict[str, Any] = node.server.client.call("POST", "/drills/hosts/n1/questions", body)
        return told if told["state"] == "answered" else None

    found = until(answer, f"an answer to {question}")
    assert found is not None
    return found


async def planned(transport: NodeTransport, record: dict[str, Any]) -> dict[str, Any]:
    for verb in PLANNED:
        record = await transport.verb(verb, record)
    return record


@pytest.mark.seed("order an answer that is lost is asked for again, and nothing is broken twice")
async def test_what_was_answered_is_not_done_again(node: NodeHost) -> None:
    victim = node.victim(VICTIM)
    record = await planned(node.transport(), node.announced("node_kill", PATTERN))
    words = {"ask": "verb", "verb": "inject", "record": record}
    for missing in ("life", "until_ns"):
        with pytest.raises(BadInput, match=rf"{missing}: nothing is given; what an answer of n1 said"):
            asked(node, "q-ever", words, **({"life": "some"} if missing == "until_ns" else {"until_ns": 1}))
    heard = asked(node, "q-clock-lost", {"ask": "clock"})
    now = {"life": heard["life"], "until_ns": heard["answer"] + 10**11}
    first = asked(node, "q-lost", words, **now)
    assert first["answer"]["signalled"] == 1 and victim.wait(10) == -signal.SIGKILL
    again = node.victim(VICTIM)  # whoever keeps it up has started another one
    assert asked(node, "q-lost", words, **now) == first
    # Under another name it is refused by the keeper: the fault has been used.
    assert asked(node, "q-other", words, **now)["refusal"]["kind"] == "NotFound"  # the planned ones are gone
    fresh = await node.transport().verb("plan", {**record, "plan": None})
    refused = asked(node, "q-third", {**words, "record": fresh}, **now)["refusal"]
    assert refused["kind"] == "GiveUp" and "has been used here" in refused["message"]
    assert again.poll() is None


@pytest.mark.seed("order an answer that is lost is asked for again, and nothing is broken twice")
async def test_another_life_of_the_node_process_does_not_begin_it(node: NodeHost) -> None:
    process, transport = node.processes[-1], node.transport()
    victim = node.victim(VICTIM)
    record = await planned(transport, node.announced("node_kill", PATTERN))
    heard = asked(node, "q-clock", {"ask": "clock"})
    inject = {"ask": "verb", "verb": "inject", "record": record}
    late = asked(node, "q-late", inject, life=heard["life"], until_ns=heard["answer"])
    assert "came too late" in late["refusal"]["message"]
    process.kill()
    process.wait()
    node.start_node()
    with pytest.raises(GiveUp, match="started again since"):
        await transport.verb("inject", record)
    assert victim.poll() is None
    assert machine.Folder(node.keeper).open_faults() == []


@pytest.mark.seed("order what was given up is not done later")
async def test_a_node_that_thaws_does_not_begin_what_was_given_up(node: NodeHost) -> None:
    process = node.processes[-1]
    victim = node.victim(VICTIM)
    record = await planned(node.transport(), node.announced("node_kill", PATTERN))
    heard = asked(node, "q-clock", {"ask": "clock"})
    inject = {"ask": "verb", "verb": "inject", "record": record}
    words = {
        "question": "q-frozen",
        "words": inject,
        "life": heard["life"],
        "until_ns": heard["answer"] + 10**9,
    }
    process.send_signal(signal.SIGSTOP)
    try:
        while machine.now_ns() <= words["until_ns"]:
            told = node.server.client.call("POST", "/drills/hosts/n1/questions", words)
            assert told["state"] == "silent"
    finally:
        process.send_signal(signal.SIGCONT)
    refused = asked(node, **words)["refusal"]
    assert refused["kind"] == "GiveUp" and "came too late" in refused["message"]
    assert victim.poll() is None


@pytest.mark.seed("order no harm without the claim of an announced run, nor while drills are halted")
async def test_no_harm_without_a_claim(node: NodeHost) -> None:
    victim, transport = node.victim(VICTIM), node.transport()
    record = await planned(transport, {**node.announced("node_kill", PATTERN), "fault": "r-nobody"})
    with pytest.raises(NotAllowed, match="no run r-nobody was begun"):
        await transport.verb("inject", record)
    node.announce("r-elsewhere", "n2")
    with pytest.raises(NotAllowed, match="announced for n2, not for n1"):
        await transport.verb("inject", {**record, "fault": "r-elsewhere"})
    power = {**record, "injector": "node_power", "target": {"host": "n2"}}
    node.announce("r-here")
    with pytest.raises(NotAllowed, match="announced for n1, not for n2"):
        await transport.verb("inject", {**power, "fault": "r-here"})
    with pytest.raises(NotAllowed, match="not node_power"):  # the host itself, to which it was let through
        await transport.verb("inject", {**power, "fault": "r-elsewhere"})
    other = node.token("other", "admin", "infrastructure")
    node.announce("r-other", client=other)
    with pytest.raises(NotAllowed, match="begun by other"):
        await transport.verb("inject", {**record, "fault": "r-other"})
    node.announce("r-over")
    node.server.client.call("PUT", "/drills/runs/r-over/report", {**report("r-over"), "drill": "by-hand"})
    with pytest.raises(NotAllowed, match="its claim lapsed"):
        await transport.verb("inject", {**record, "fault": "r-over"})
    node.announce("r-ours")
    node.server.client.call("POST", "/drills/halt", {"why": "smoke"})
    with pytest.raises(NotAllowed, match="halted by admin: smoke"):
        await transport.verb("inject", {**record, "fault": "r-ours"})
    node.server.client.call("POST", "/drills/resume")
    assert victim.poll() is None
    record = await transport.verb("inject", {**record, "fault": "r-ours"})
    assert record["inject"]["signalled"] == 1 and victim.wait(10) == -signal.SIGKILL


@pytest.mark.seed("order hosts are drilled by those whose they are")
async def test_who_may_ask_a_host(node: NodeHost) -> None:
    for name, role, project in (
        ("v", "viewer", "infrastructure"),
        ("o", "operator", "blue"),
        ("c", "consumer", "blue"),
    ):
        with pytest.raises(NotAllowed, match="only an administrator"):
            await node.transport(client=node.token(name, role, project)).clock_ns()
    assert await node.transport(client=node.token("a", "admin", "infrastructure")).clock_ns() > 0
    with pytest.raises(NotAllowed, match="token not known"):
        await node.transport(client=Client(node.server.url, "hs_unknown")).clock_ns()
    with pytest.raises(NotFound, match="there is no host 'n7'"):
        await node.transport("n7").clock_ns()


@pytest.mark.seed("order what may be broken is decided on the host itself: off unless its own file says on")
async def test_a_host_without_a_drills_part_refuses(node: NodeHost, tmp_path: Path) -> None:
    victim, transport = node.victim(VICTIM), node.transport()
    record = node.announced("node_kill", PATTERN)
    node.permit(enabled=None)
    for verb in ("probe", "plan", "inject"):
        with pytest.raises(NotAllowed, match=r"n1: drills.enabled is false in its node.yaml"):
            await transport.verb(verb, record)
    with pytest.raises(NotAllowed, match=r"drills.enabled is false"):
        await transport.holds("haproxy", "address", "http://127.0.0.1:80")
    config = WatchConfig("processes", PATTERN["command_line"], str(tmp_path / "sightings"))
    async with Monitors([transport.watch(config, tmp_path)]) as monitors:
        assert not await monitors.ready(30)
        assert monitors.lost == {"processes": MonitorLoss.DIED}
    assert (await transport.status())["open"] == [] and victim.poll() is None


async def test_bad_questions_are_refused_before_anything_is_written(node: NodeHost) -> None:
    with pytest.raises(BadInput, match="pattern"):
        await node.transport().verb("plan", {"fault": "../../up", "injector": "node_kill", "target": {}})
    huge = {"fault": "f-1", "injector": "node_cpu", "target": {"window_s": 2**70}}
    with pytest.raises(BadInput, match="64 bits"):
        await node.transport().verb("plan", huge)
    long = {"fault": "f-1", "injector": "node_kill", "target": {"command_line": "x" * 600_000}}
    with pytest.raises(BadInput, match="at most 524288 are carried"):
        await node.transport().verb("plan", long)


async def test_what_is_down_is_started_only_for_a_run_announced_there(node: NodeHost) -> None:
    started = node.root / "started"
    program = {"restart-it": {"argv": ["/bin/touch", str(started)]}}
    node.permit(programs=program, profiles={"it": PATTERN})
    transport = node.transport()
    with pytest.raises(NotAllowed, match="no run r-nobody was begun"):
        await transport.restart("it", "r-nobody")
    node.announce("r-on-n2", "n2")
    with pytest.raises(NotAllowed, match="announced for n2, not for n1"):
        await transport.restart("it", "r-on-n2")
    assert not started.exists()
    node.victim(VICTIM)
    record = await planned(transport, node.announced("node_kill", {"profile": "it"}))
    await transport.verb("inject", record)
    assert "restart-it" in await transport.restart("it", record["fault"]) and started.exists()


async def test_what_is_down_on_a_host_that_was_off_is_started(node: NodeHost) -> None:
    """Its fault was injected where its power is, and another life of its node process is there now."""
    process, transport = node.processes[-1], node.transport()
    started = node.root / "started"
    node.permit(programs={"restart-it": {"argv": ["/bin/touch", str(started)]}}, profiles={"it": PATTERN})
    node.announce("r-power")
    await transport.clock_ns()
    process.kill()
    process.wait()
    node.start_node()
    assert "restart-it" in await transport.restart("it", "r-power") and started.exists()


@pytest.mark.parametrize("injector", ["node_kill", pytest.param("node_freeze", marks=pytest.mark.slow)])
async def test_a_node_process_is_seen_by_itself_and_never_hit(node: NodeHost, injector: str) -> None:
    process, transport = node.processes[-1], node.transport()
    record = node.announced(injector, {"command_line": f".* -m homeostat.node.main {node.config}"})
    with pytest.raises(NotAllowed, match="would be hit: init, who asks"):
        await transport.verb("plan", record)
    looks = {**record, "target": {**record["target"], "only_look": True}}
    looks = await transport.verb("plan", looks)
    assert [each["pid"] for each in looks["plan"]["matched"]] == [process.pid]
    with pytest.raises(GiveUp, match=r"target.only_look: True is not accepted"):
        await transport.verb("inject", looks)
    assert process.poll() is None and state(process) in "RS"


@pytest.mark.seed("order the undo needs neither the server nor the tool: each killed, undone in time")
@pytest.mark.parametrize(
    "who", ["node", *(pytest.param(each, marks=pytest.mark.slow) for each in ("tool", "server"))]
)
async def test_whoever_is_killed_leaves_nothing_broken(node: NodeHost, who: str) -> None:
    process = node.processes[-1]
    victim = node.victim(VICTIM)
    record = node.announced("node_freeze", PATTERN, deadline_s=4.0)
    plan = node.root / f"{record['fault']}.json"
    argv = [sys.executable, str(TOOL), node.site_server.model_dump_json(), str(plan)]
    tool = node.start(*argv, stdout=subprocess.PIPE)
    assert tool.stdout is not None and tool.stdout.readline() == b"renewed\n"
    assert state(victim) == "T"
    if who == "tool":
        tool.kill()
    elif who == "server":
        node.server.kill()
    else:
        process.kill()
    outcome = node.outcome(plan)
    assert (outcome["reason"], outcome["undone"], outcome["within_deadline"]) == ("lapsed", True, True)
    assert state(victim) == "S"


async def test_a_renewal_ends_with_the_claim_and_the_host_undoes_it(node: NodeHost) -> None:
    victim, transport = node.victim(VICTIM), node.transport()
    record = await planned(transport, node.announced("node_freeze", PATTERN, deadline_s=5.0))
    await transport.verb("inject", record)
    await transport.renew(record["fault"])
    node.server.client.call("POST", "/drills/halt", {"why": "smoke"})
    with pytest.raises(RetryLater, match="halted by admin: smoke"):
        await transport.renew(record["fault"])
    outcome = node.outcome(node.root / f"{record['fault']}.json")
    assert (outcome["reason"], outcome["within_deadline"]) == ("lapsed", True)
    assert state(victim) == "S"


@pytest.mark.parametrize("who", ["server", pytest.param("nats", marks=pytest.mark.slow)])
async def test_who_is_started_again_is_no_obstacle(node: NodeHost, who: str) -> None:
    transport = node.transport()
    before = await transport.clock_ns()
    again = node.server if who == "server" else node.nats
    again.kill()
    again.start()
    assert await transport.clock_ns() > before


async def test_a_host_that_says_nothing_is_given_up(node: NodeHost) -> None:
    transport = node.transport()
    process = node.processes[-1]
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(RetryLater, match=r"n1: no answer to status .*is it running"):
            await transport.status()
    finally:
        process.send_signal(signal.SIGCONT)
    assert (await transport.status())["open"] == []


def config(folder: Path) -> WatchConfig:
    return WatchConfig("processes", PATTERN["command_line"], str(folder / "sightings.jsonl"), 10.0)


def watches(node: subprocess.Popen[bytes]) -> list[int]:
    """The watches of a node process: its children but for the runner."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return [
        int(pid) for pid in children if b"drills.shipped.main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.seed("order a watch on a host ends with the tool that asked for it")
async def test_a_watch_does_not_outlive_who_reads_it(node: NodeHost, tmp_path: Path) -> None:
    process = node.processes[-1]
    node.victim(VICTIM)
    async with Monitors([node.transport().watch(config(tmp_path), tmp_path)]) as monitors:
        assert await monitors.ready(30), monitors.lost
        (there,) = watches(process)
        (ours,) = monitors.identities.values()
        os.kill(ours.pid, signal.SIGKILL)
        await eventually(lambda: machine.identify(there) is None, 30)
    assert watches(process) == []


@pytest.mark.seed("order a monitor that dies is lost, by the node process too")
@pytest.mark.parametrize("who", [pytest.param("watch", marks=pytest.mark.slow), "node"])
async def test_a_watch_that_dies_is_lost(node: NodeHost, tmp_path: Path, who: str) -> None:
    process = node.processes[-1]
    node.victim(VICTIM)
    async with Monitors([node.transport().watch(config(tmp_path), tmp_path)]) as monitors:
        assert await monitors.ready(30), monitors.lost
        (there,) = watches(process)
        os.kill(there if who == "watch" else process.pid, signal.SIGKILL)
        await eventually(monitors.lost_one.is_set, 30)
        assert monitors.lost["processes"] in (MonitorLoss.DIED, MonitorLoss.SILENT)
    await eventually(lambda: machine.identify(there) is None, 30)


async def test_a_tool_that_is_killed_is_healed_by_the_next_one(node: NodeHost) -> None:
    victim = node.victim(VICTIM)
    transport = node.transport()
    record = await planned(transport, node.announced("node_freeze", PATTERN))
    await transport.verb("inject", record)
    assert state(victim) == "T"
    (outcome,) = await node.transport().heal()  # whose claim it was does not matter for an undo
    assert (outcome["fault"], outcome["undone"]) == (record["fault"], True)
    assert state(victim) == "S"


def test_the_site_says_so_in_one_word(tmp_path: Path) -> None:
    from homeostat.drills.site import Site, read_site

    path = tmp_path / "site.yaml"
    server = f"server: {{url: 'http://127.0.0.1:1', token_file: {tmp_path}/t}}\n"
    path.write_text(f"site: s\n{server}hosts: {{n1: {{node: true}}}}\n")
    assert isinstance(read_site(path), Site) and read_site(path).hosts["n1"].node
    path.write_text("site: s\nhosts: {n1: {node: true}}\n")
    with pytest.raises(BadInput, match=r"hosts.n1.node: the site's server"):
        read_site(path)
    path.write_text(f"site: s\n{server}hosts: {{n1: {{node: true, config: node.yaml}}}}\n")
    with pytest.raises(BadInput, match="not by both"):
        read_site(path)
    with pytest.raises(GiveUp):
        NodeTransport("n1", read_site_server(tmp_path))


def read_site_server(folder: Path) -> Any:
    from homeostat.drills.site import SiteServer

    return SiteServer(url="http://127.0.0.1:1", token_file=folder / uuid.uuid4().hex)

"""The whole runner as a process, with real agents and real services that are really killed."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from played_node import PlayedNode, eventually

from engines import needs
from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Outcome, ResourceStatus
from homeostat.kernel.processes import is_alive

MakeNode = Callable[..., PlayedNode]
UP, DOWN, STARTING = ResourceState.UP, ResourceState.DOWN, ResourceState.STARTING
STOPPED, FAILED = ResourceState.STOPPED, ResourceState.FAILED
WEB = ResourceId("web")


def service(name: str = "web", command: str = "sleep 300", **parameters: object) -> dict[str, Any]:
    return {
        "id": name,
        "agent": "ocf:homeostat:process",
        "kind": "service",
        "owner": "platform",
        "parameters": {"command": command, **{k: str(v) for k, v in parameters.items()}},
        "operations": {"monitor": {"timeout_s": 10, "interval_s": 60}},
    }


def dummy(interval_s: float = 0.2) -> dict[str, Any]:
    monitor = {"timeout_s": 20, "interval_s": interval_s}
    return {
        "id": "dummy",
        "agent": "ocf:heartbeat:Dummy",
        "kind": "guest",
        "owner": "alpha",
        "operations": {"monitor": monitor},
    }


def test_a_service_is_started_and_after_kill_9_it_is_back(node: MakeNode) -> None:
    played = node(service())
    played.start()
    up = played.reported("web", UP)
    starting = played.reports[0]
    assert starting.state is STARTING and starting.intended is not None and up.finished is not None
    assert up.finished.action == starting.intended.action
    before = played.kill_service("web")
    down = played.reported("web", DOWN)
    assert down.reason == f"process_died: its process died (pid {before.pid})"
    assert down.intended is not None and down.intended.verb == "restart"
    back = played.reported("web", UP, after=down.number)
    assert back.finished is not None and back.finished.outcome is Outcome.OK
    assert played.service("web") != before
    # The monitor's interval is a minute: only the pidfd can have seen it. Stamped where it was seen.
    assert (back.mono_ns - down.mono_ns) / 1e9 < 50
    assert played.open_intents == {}


def test_a_death_is_reported_long_before_the_next_monitor(node: MakeNode) -> None:
    played = node(service(), stable_s=0)
    played.start()
    seen_ms: list[float] = []
    for _ in range(5):
        up = played.reported("web", UP, after=len(played.reports) - 1 if seen_ms else 0)
        killed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        played.kill_service("web")
        down = played.reported("web", DOWN, after=up.number)
        seen_ms.append((down.mono_ns - killed_ns) / 1e6)
        played.reported("web", UP, after=down.number)
    # Typically 0.3 ms, which `make bench` measures; it is monitored each minute.
    assert min(seen_ms) < 10_000, seen_ms


def test_nothing_is_done_before_the_report_is_on_disk(node: MakeNode) -> None:
    played = node(service())
    played.answering = False
    played.start()
    starting = played.reported("web", STARTING)
    monitored = played.state_dir / "runner" / "web.out"
    assert monitored.exists()
    with pytest.raises(AssertionError):
        eventually(lambda: list(played.rsctmp.iterdir()), "an act", deadline_s=0.5)
    played.answering = True
    played.record(starting)
    played.reported("web", UP)


def test_a_runner_killed_with_9_leaves_its_services_and_finds_them_again(node: MakeNode) -> None:
    played = node(service("web"), service("db"))
    played.start()
    played.reported("web", UP), played.reported("db", UP)
    before = {name: played.service(name) for name in ("web", "db")}
    told = len(played.reports)
    for _ in range(3):
        played.end(signal.SIGKILL)
        assert all(map(is_alive, before.values()))
        played.start()
    # It watches again: a death is seen, and only then is there something to say.
    played.kill_service("web")
    down = played.reported("web", DOWN, after=told)
    assert played.reports[told] is down
    assert played.service("db") == before["db"]


def test_a_service_that_dies_while_the_runner_is_dead_was_down(node: MakeNode) -> None:
    played = node(service())
    played.start()
    played.reported("web", UP)
    told = len(played.reports)
    played.end(signal.SIGKILL)
    before = played.kill_service("web")
    eventually(lambda: not is_alive(before), "it is dead")
    played.start()
    played.reported("web", UP, after=told)
    down, up = played.reports[told:]
    assert down.state is DOWN and down.reason.startswith("went_away_unwatched: ")
    assert down.mono_ns == 0 < up.mono_ns, "nobody saw when it died, so nobody says how long it was away"
    assert down.intended is not None and up.finished is not None
    assert up.finished.action == down.intended.action
    assert played.service("web") != before


def test_an_act_cut_off_by_kill_9_is_finished_on_return(node: MakeNode) -> None:
    played = node(service())
    played.answering = False
    played.start()
    starting = played.reported("web", STARTING)
    played.end(signal.SIGKILL)
    # The intent reached the disk, the answer never reached the runner.
    played.levels[WEB] = level(starting.state, starting.reason)
    assert starting.intended is not None
    played.open_intents[WEB] = starting.intended
    played.answering = True
    played.start()
    played.reported("web", UP, after=1)
    again, up = played.reports[1:]
    assert again.state is STARTING and again.finished is not None and again.intended is not None
    assert (again.finished.action, again.finished.outcome) == (starting.intended.action, Outcome.FAILED)
    assert up.finished is not None and up.finished.action == again.intended.action
    assert played.open_intents == {}


def test_a_start_that_outlives_its_runner_is_waited_for_and_not_run_twice(
    node: MakeNode, tmp_path: Path
) -> None:
    births, go, ready = tmp_path / "births", tmp_path / "go", tmp_path / "ready"
    script = f"echo $$ >> {births}; until [ -e {go} ]; do sleep 0.02; done; touch {ready}; exec sleep 300"
    played = node(service(command=f"sh -c '{script}'", ready_file=ready))
    played.start()
    starting = played.reported("web", STARTING)
    eventually(births.exists, "the service is being started")
    played.end(signal.SIGKILL)
    played.start()
    eventually(lambda: "waiting for the start of an earlier runner" in played.log, "it waits")
    go.touch()
    up = played.reported("web", UP)
    assert len(births.read_text().split()) == 1
    assert starting.intended is not None and up.finished is not None
    assert (up.finished.action, up.finished.outcome) == (starting.intended.action, Outcome.OK)
    assert up.reason.startswith("adopted: ")


def test_a_hopeless_service_is_tried_again_with_pauses(node: MakeNode) -> None:
    played = node(service(command="sh -c 'exit 1'"), backoff_most_s=1)
    played.start()
    eventually(lambda: sum(r.intended is not None for r in played.reports) >= 3, "three attempts")
    attempts = [r for r in played.reports if r.intended is not None]
    assert [r.state for r in attempts[:3]] == [STARTING, DOWN, DOWN]
    assert all(b.mono_ns - a.mono_ns >= 1_000_000_000 for a, b in itertools.pairwise(attempts))
    assert len({r.intended.action for r in attempts if r.intended}) == len(attempts)
    failed = next(r for r in played.reports if r.finished is not None)
    assert failed.finished is not None and failed.finished.outcome is Outcome.FAILED
    assert "ended before it was ready" in failed.finished.reason


def test_an_agent_that_refuses_makes_it_failed(node: MakeNode) -> None:
    played = node(service(command="no-such-program"))
    played.start()
    failed = played.reported("web", FAILED)
    assert "'no-such-program' is not installed; exit code 5" in failed.reason


def test_a_missing_agent_makes_it_failed_and_the_others_run(node: MakeNode, tmp_path: Path) -> None:
    lost = {"id": "lost", "agent": "ocf:heartbeat:Lost", "owner": "alpha"}
    played = node(lost, service(), providers=["homeostat", "heartbeat"], ocf_root=str(tmp_path))
    played.start()
    played.reported("web", UP)
    played.reported("lost", FAILED, why="agent_refuses: ")
    assert "Lost is not an executable file" in played.log


@pytest.mark.parametrize("how", ["line", "term"])
def test_leaving_leaves_everything_running(node: MakeNode, how: str) -> None:
    played = node(service(), on_stop="leave")
    played.start()
    played.reported("web", UP)
    running, told = played.service("web"), len(played.reports)
    assert played.end(None if how == "line" else signal.SIGTERM) == 0
    assert is_alive(running)
    assert len(played.reports) == told


def test_stopping_stops_all_in_parallel_and_then_ends(node: MakeNode) -> None:
    stubborn = "sh -c 'trap \"\" TERM; while :; do sleep 0.05; done'"
    names = [f"r{i}" for i in range(4)]
    played = node(*(service(name, stubborn, stop_grace_s=1) for name in names), on_stop="stop")
    played.start()
    for name in names:
        played.reported(name, UP)
    running = [played.service(name) for name in names]
    assert played.end(signal.SIGTERM) == 0
    assert not any(map(is_alive, running))
    begun = [at for at, each in enumerate(played.reports) if each.intended and each.intended.verb == "stop"]
    ended = [at for at, each in enumerate(played.reports) if each.state is STOPPED]
    assert len(begun) == len(ended) == len(names) and max(begun) < min(ended), (
        "the last begins before one ends"
    )
    for name in names:
        stopped = played.reported(name, STOPPED)
        assert stopped.finished is not None and stopped.finished.outcome is Outcome.OK
    assert played.open_intents == {}


def test_a_stop_cuts_a_start_short(node: MakeNode, tmp_path: Path) -> None:
    played = node(service(ready_file=tmp_path / "never"), on_stop="stop")
    played.start()
    played.reported("web", STARTING)
    pid_file = played.rsctmp / "homeostat-process-web.pid"
    eventually(lambda: pid_file.exists() and pid_file.read_text(), "the start is under way")
    assert played.end(signal.SIGTERM) == 0
    states = [report.state for report in played.reports]
    assert states == [STARTING, STARTING, STOPPED]
    cut = played.reports[1].finished
    assert cut is not None and cut.outcome is Outcome.UNKNOWN
    assert played.open_intents == {} and not pid_file.exists()


def test_what_was_stopped_starts_again_without_an_outage(node: MakeNode) -> None:
    played = node(service(), on_stop="stop")
    played.start()
    played.reported("web", UP)
    played.end(signal.SIGTERM)
    told = len(played.reports)
    played.start()
    played.reported("web", UP, after=told)
    assert [r.state for r in played.reports[told:]] == [STARTING, UP]


def test_what_left_the_configuration_is_unknown_and_its_act_closed(node: MakeNode) -> None:
    played = node(service())
    played.start()
    starting = played.reported("web", STARTING)
    played.reported("web", UP)
    played.end(signal.SIGKILL)
    played.configure({"resources": []})
    assert starting.intended is not None
    played.open_intents[WEB] = starting.intended
    played.start()
    unknown = played.reported("web", ResourceState.UNKNOWN, why="not_configured: ")
    assert unknown.finished is not None and unknown.finished.outcome is Outcome.UNKNOWN
    eventually(lambda: not played.open_intents, "closed")
    told = len(played.reports)
    played.end(signal.SIGKILL)
    played.start()
    assert played.end(None) == 0
    assert len(played.reports) == told


def test_what_is_configured_below_the_agents_advice_is_warned_of(node: MakeNode) -> None:
    resource = service(stop_grace_s=40)
    played = node(resource)
    played.start()
    line = (
        "resources.web.operations.stop.timeout_s: 20 is less than the 50 s that ocf:homeostat:process advises"
    )
    eventually(lambda: line in played.log, "the warning")


def with_another_agents_pid_file(node: MakeNode, tmp_path: Path) -> tuple[PlayedNode, Path]:
    """A resource of an agent that is not ours and writes a pid alone to the file."""
    provider = tmp_path / "ocf" / "resource.d" / "site"
    provider.mkdir(parents=True)
    pid_file = tmp_path / "site.pid"
    agent = provider / "thing"
    agent.write_text(
        f"""#!/bin/sh
        alive() {{ [ -e {pid_file} ] && kill -0 "$(cat {pid_file})" 2>/dev/null; }}
        case $1 in
        start) alive || setsid -f sh -c 'echo $$ > {pid_file}; exec sleep 300'
               until alive; do sleep 0.02; done ;;
        monitor) alive || exit 7 ;;
        stop) alive && kill -9 "$(cat {pid_file})"; rm -f {pid_file} ;;
        *) exit 3 ;;
        esac"""
    )
    agent.chmod(0o755)
    resource = service() | {"agent": "ocf:site:thing", "parameters": {}, "pid_file": str(pid_file)}
    return node(resource, providers=["site"], ocf_root=str(tmp_path / "ocf"), on_stop="stop"), pid_file


def test_a_pid_file_of_another_agent_is_watched_too(node: MakeNode, tmp_path: Path) -> None:
    played, pid_file = with_another_agents_pid_file(node, tmp_path)
    played.start()
    played.reported("web", UP)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    down = played.reported("web", DOWN, why="process_died: ")
    played.reported("web", UP, after=down.number)
    assert played.end(signal.SIGTERM) == 0


def test_what_dies_while_it_is_told_as_up_died(node: MakeNode, tmp_path: Path) -> None:
    played, pid_file = with_another_agents_pid_file(node, tmp_path)
    played.answering = False
    played.start()
    played.record(played.reported("web", STARTING))
    up = played.reported("web", UP)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    played.answering = True
    played.record(up)
    down = played.reported("web", DOWN, why="process_died: ")
    played.reported("web", UP, after=down.number)
    assert played.end(signal.SIGTERM) == 0


@needs("ocf")
def test_debians_dummy_runs_unmodified(node: MakeNode) -> None:
    played = node(dummy(), providers=["heartbeat"], on_stop="stop")
    played.start()
    up = played.reported("dummy", UP)
    assert (up.kind, up.owner, up.agent) == (ResourceKind.GUEST, "alpha", "ocf:heartbeat:Dummy")
    state_file = played.rsctmp / "Dummy-dummy.state"
    state_file.unlink()
    down = played.reported("dummy", DOWN)
    assert down.reason.startswith("not_running: ") and "No process state file found" in down.reason
    played.reported("dummy", UP, after=down.number)
    assert state_file.exists()
    assert played.end(signal.SIGTERM) == 0
    assert played.levels[ResourceId("dummy")].state is STOPPED
    assert not state_file.exists()


@needs("ocf")
def test_debians_dummy_is_adopted(node: MakeNode) -> None:
    played = node(dummy(), providers=["heartbeat"])
    played.start()
    played.reported("dummy", UP)
    state_file = played.rsctmp / "Dummy-dummy.state"
    born = state_file.stat().st_ctime_ns
    played.end(signal.SIGKILL)
    del played.levels[ResourceId("dummy")]  # a new store: the runner learns of it by looking
    played.start()
    adopted = played.reported("dummy", UP, why="adopted: ")
    assert adopted.intended is None
    assert state_file.stat().st_ctime_ns == born


def test_a_line_that_is_no_message_ends_the_runner(node: MakeNode) -> None:
    played = node(service())
    played.start()
    played.reported("web", UP)
    played.send({"number": "all"})
    assert played.ended() == 1
    assert "Recorded.number" in played.log


def test_a_bad_configuration_is_one_line(node: MakeNode) -> None:
    played = node(service() | {"colour": "blue"})
    played.start()
    assert played.ended() == 2
    lines = played.log.splitlines()
    assert len(lines) == 1 and "runner.resources.0.colour" in lines[0]


def level(state: ResourceState, reason: str) -> ResourceStatus:
    return ResourceStatus(
        WEB, ResourceKind.SERVICE, Owner("platform"), "ocf:homeostat:process", state, reason, 1, 1
    )

"""Starting and stopping `homeostat up`, politely and not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running_lab import eventually, footprint, listening, running, start

from homeostat.kernel.processes import identify, is_alive

pytestmark = pytest.mark.e2e


@pytest.mark.seed("order SIGTERM and Ctrl-C leave no process and no listening port")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_leaves_no_process_and_no_listening_port(tmp_path: Path, number: signal.Signals) -> None:
    lab = start(tmp_path / "state")
    during = footprint(lab.directory)
    assert len(during.pids) >= 20, "up, NATS, server, 3 nodes, 3 runners, 2 balancers, consumer, 9 services"
    assert len(during.ports) >= 13, "API, NATS, balancer, consumer, 9 services"
    assert lab.stop(number) == 0, lab.output()
    eventually(lambda: not footprint(lab.directory).pids, 5, "no process of the lab lives")
    assert not during.ports & listening()


@pytest.mark.seed("order kill -9 of up: the next up takes over what lives and loses nothing")
@pytest.mark.slow
def test_after_kill_9_of_up_the_next_one_takes_over_the_living_and_tells_of_the_dead(tmp_path: Path) -> None:
    first = start(tmp_path / "state")
    services = {name: first.service(name) for name in ("web-n1", "web-n2", "guest-n3-a")}
    victim = first.service("guest-n3-b")
    children = [first.child(name) for name in ("server", "nats", "node-n1", "balancer-edge1")]
    up = identify(first.process.pid)
    assert up is not None
    assert victim is not None
    first.kill(up)
    first.process.wait(10)
    eventually(lambda: not any(map(is_alive, children)), 10, "children die with `up`")
    for name, identity in services.items():
        assert identity is not None
        assert is_alive(identity), f"{name} died with `up`"
    first.kill(victim)
    with running(tmp_path / "state") as second:
        for name, identity in services.items():
            assert second.service(name) == identity, f"{name} was restarted"
        eventually(lambda: second.restarted("guest-n3-b", victim), 10, "guest-n3-b runs again")
        eventually(
            lambda: second.told("green", "resource/guest-n3-b") == ["raised", "cleared"],
            20,
            "green was told of the death that nobody saw",
        )


@pytest.mark.seed("order a second up on the same directory is refused in one line")
def test_a_second_up_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "state") as lab:
        second = subprocess.run(
            [sys.executable, "-m", "homeostat.cli", "up", "--dir", str(lab.directory)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=dict(os.environ),
        )
        assert second.returncode == 3, second
        assert str(lab.process.pid) in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        assert lab.all_up()

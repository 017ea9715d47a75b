"""A host of the lab is switched off as one thing: everything of it ends, nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_waiting import until

from homeostat.contracts.nouns import HostId
from homeostat.drills.shipped.keeper import daemon
from homeostat.kernel.errors import NotFound
from homeostat.kernel.processes import Identity, identify, is_alive
from homeostat.lab.children import LAB_MARK, end_all, undo_keepers
from homeostat.lab.plan import EDGES, StateDirectory
from homeostat.lab.power import HOST_MARK, find_lab_host, is_on, processes_of_host, switch_off, switch_on

N1, N2 = HostId("n1"), HostId("n2")


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path)
    for host in (N1, N2):
        made.host(host).mkdir(parents=True)
    made.lab_file.write_text("{}")
    return made


@contextmanager
def sleeping(**environment: str) -> Iterator[Identity]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HOMEOSTAT")}
    process = subprocess.Popen(["sleep", "600"], env={**clean, **environment}, start_new_session=True)
    try:
        found = until(lambda: identify(process.pid), "it runs")
        assert found is not None
        until(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "it is what it is")
        yield found
    finally:
        process.kill()
        process.wait()


def test_everything_of_the_host_ends_and_nothing_else(state: StateDirectory) -> None:
    here = {LAB_MARK: str(state.root)}
    with (
        sleeping(**here, **{HOST_MARK: "n2"}) as node,
        sleeping(HA_RSCTMP=f"{state.host(N2)}/scratch") as agent,
        sleeping() as guest,
        sleeping(**here, **{HOST_MARK: "n1"}) as other_host,
        sleeping(**here) as server,
        sleeping(**{LAB_MARK: "/another/lab", HOST_MARK: "n2"}) as other_lab,
    ):
        (state.host(N2) / "guest.pid").write_text(f"{guest.pid} {guest.start_ticks}\n")
        assert processes_of_host(state, N2) == {node, agent, guest}
        ended = switch_off(state, N2)
        assert {each.identity for each in ended} == {node, agent, guest}
        assert all(each.killed for each in ended), "at once, as if the power failed"
        assert not any(map(is_alive, (node, agent, guest)))
        assert all(map(is_alive, (other_host, server, other_lab)))
        assert not switch_off(state, N2), "again changes nothing"


def test_off_is_remembered_until_it_is_switched_on(state: StateDirectory) -> None:
    assert is_on(state, N2)()
    switch_off(state, N2)
    assert not is_on(state, N2)()
    assert is_on(state, N1)()
    assert switch_on(state, N2)
    assert is_on(state, N2)()
    assert not switch_on(state, N2)


def test_a_directory_without_a_lab_and_a_host_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no lab"):
        find_lab_host(tmp_path, "n1")
    (tmp_path / "lab.json").write_text("{}")
    with pytest.raises(NotFound, match="n1, n2, n3"):
        find_lab_host(tmp_path, "n9")
    for edge in EDGES:
        with pytest.raises(NotFound, match=f"{edge} has no power switch"):
            find_lab_host(tmp_path, edge)
    with pytest.raises(NotFound, match="no host 'up'"):
        find_lab_host(tmp_path, "up")


def test_the_undo_keeper_of_a_host_ends_with_it_and_no_other(state: StateDirectory) -> None:
    lives = [daemon.start(state.host(host) / "keeper") for host in (N1, N2)]
    mine, other = (Identity(life["pid"], life["start_ticks"]) for life in lives)
    try:
        assert mine in processes_of_host(state, N1) and len(processes_of_host(state, N1)) == 2, (
            "the keeper and its guard"
        )
        switch_off(state, N1)
        assert not is_alive(mine) and is_alive(other)
    finally:
        end_all(lambda: undo_keepers(state.root), grace_s=0.0)


def test_the_switch_says_on_off_and_what_lies_between(state: StateDirectory) -> None:
    def switch(verb: str) -> str:
        argv = [sys.executable, "-m", "homeostat.lab.power", "--dir", str(state.root), verb, "n2"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout.strip()

    assert switch("state") == "on"
    with sleeping(**{LAB_MARK: str(state.root), HOST_MARK: "n2"}) as node:
        state.off_file(N2).touch()
        assert switch("state") == "going off"
        assert switch("off") == "off" and not is_alive(node)
    assert switch("on") == "on" and switch("on") == "on", "again does no harm"


def test_the_power_switch_gives_a_receipt_or_says_why_not(state: StateDirectory) -> None:
    with sleeping(**{LAB_MARK: str(state.root), HOST_MARK: "n1"}) as node:
        done = subprocess.run(
            [sys.executable, "-m", "homeostat.lab.power", "--dir", str(state.root), "fence", "n1"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (
            0,
            "host n1 is off: 1 processes had to be ended, none lives\n",
        )
        assert not is_alive(node)
    bad = subprocess.run(
        [sys.executable, "-m", "homeostat.lab.power", "--dir", str(state.root), "fence", "n9"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert bad.returncode == 1
    assert "no host 'n9'" in bad.stderr

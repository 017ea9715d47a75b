"""A host is shut down in order: its node process says goodbye, then power and link are gone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_lab import Lab, eventually, running

from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import Conflict, NotFound
from homeostat.kernel.files import write_private
from homeostat.kernel.processes import is_alive
from homeostat.lab.plan import StateDirectory
from homeostat.lab.power import switch_off, switch_on

pytestmark = pytest.mark.e2e
N2 = HostId("n2")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of its own: here guests move."""
    with running(Path(tmp_path_factory.mktemp("orderly")) / "state") as started:
        yield started


def host(lab: Lab) -> dict[str, Any]:
    (row,) = (each for each in lab.get("/hosts")["items"] if each["host"] == N2)
    return dict(row)


def guests_on(lab: Lab, name: str) -> list[str]:
    rows = lab.get("/resources")["items"]
    return sorted(row["id"] for row in rows if row["host"] == name and row["kind"] == "guest")


@pytest.mark.seed("order a host that is shut down in order is found down, and its guests start elsewhere")
def test_goodbye_and_power_off_is_a_dead_host_and_a_restart_of_the_node_process_is_not(lab: Lab) -> None:
    eventually(lab.all_up, 60, "everything is up")
    mine = guests_on(lab, N2)
    assert mine
    assert host(lab)["witness"] == "both"
    with pytest.raises(Conflict, match="it lives"):
        lab.client.call("DELETE", "/hosts/n2")
    with pytest.raises(NotFound, match="does not claim"):
        lab.client.call("POST", f"/hosts/n2/claims/{mine[0]}")
    before = lab.child("node-n2")
    lab.kill(before, signal.SIGTERM)
    eventually(lambda: lab.reborn("node-n2", before), 30, "the node process is started again")
    eventually(lab.all_up, 60, "everything is up again")
    assert guests_on(lab, N2) == mine
    assert not lab.told("on-call", "node/n2"), "a restart of the node process is no fault"

    state = StateDirectory(lab.directory)
    write_private(state.off_file(N2), b"off\n")  # nothing of it is started again
    node = lab.child("node-n2")
    lab.kill(node, signal.SIGTERM)
    eventually(lambda: not is_alive(node), 30, "the node process ends")
    eventually(lambda: host(lab)["agent"] == "stopped", 10, "it said goodbye")
    switch_off(state, N2)
    eventually(lambda: lab.told("on-call", "node/n2") == ["raised"], 40, "administrators are told")
    for project in ("blue", "green"):
        eventually(lambda p=project: lab.told(p, "node/n2") == ["raised"], 10, f"{project} is told")  # type: ignore[misc]
    assert host(lab)["state"] == "down"
    eventually(lambda: not guests_on(lab, N2), 30, "its guests start elsewhere")
    eventually(
        lambda: all(row["state"] == "up" for row in lab.get("/resources")["items"] if row["id"] in mine),
        60,
        "and are up",
    )
    switch_on(state, N2)
    eventually(lambda: lab.told("on-call", "node/n2") == ["raised", "cleared"], 90, "it is back")

"""A host of this machine by its transport: what is not the same for every way to a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from broken_host import BrokenHost

from homeostat.drills.shipped.injectors.record import heal_fault
from homeostat.drills.transports.connections import LocalTransport
from homeostat.kernel.errors import BadInput


@pytest.fixture
def transport(host: BrokenHost, tmp_path: Path) -> LocalTransport:
    return LocalTransport("n1", host.config, tmp_path / "orders")


def order(injector: str, **target: Any) -> dict[str, Any]:
    return {"fault": "f-1", "injector": injector, "deadline_s": 30.0, "target": target}


async def test_the_file_of_another_host_is_refused(host: BrokenHost, tmp_path: Path) -> None:
    other = LocalTransport("n2", host.config, tmp_path / "orders")
    with pytest.raises(BadInput, match=r"hosts\.n2\.config"):
        await other.verb("probe", order("node_cpu"))


async def test_a_host_holds_its_own_addresses_only(transport: LocalTransport) -> None:
    assert await transport.holds("haproxy", "address", "http://127.0.0.1:80")
    assert not await transport.holds("haproxy", "address", "http://203.0.113.7:80")
    with pytest.raises(BadInput):
        await transport.holds("haproxy", "guessed", "http://127.0.0.1:80")


def test_what_cannot_be_undone_now_stops_no_other(tmp_path: Path) -> None:
    outcome = heal_fault(tmp_path, "no name at all")
    assert not outcome["undone"] and "'no name at all'" in outcome["reason"]

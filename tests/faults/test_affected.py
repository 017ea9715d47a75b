"""Who suffers from the death of a host: kept between deaths, and never what was true before."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from homeostat.contracts.nouns import (
    INFRASTRUCTURE,
    FaultId,
    FaultKind,
    HostId,
    Owner,
    ResourceId,
    ResourceKind,
    ResourceState,
    Severity,
)
from homeostat.faults import model as affected
from homeostat.faults.model import LARGE_HOST, decode_affected, encode_affected, superseded
from homeostat.fleet.model import Resource, Topology
from homeostat.notices.content import RenderContext
from homeostat.notices.formats import render
from homeostat.notices.model import Affected, AffectedIndex, FaultPicture, NoticeFormat, NoticeTransition

N1, N2 = HostId("n1"), HostId("n2")


def guest(name: str, owner: str = "blue", host: HostId = N1) -> Resource:
    return Resource(
        ResourceId(name), host, ResourceKind.GUEST, Owner(owner), "ocf:x:y", ResourceState.UP, "", 1, 1
    )


def fresh(topology: Topology, host: HostId) -> str:
    return encode_affected(row for row in topology.on_host(host) if row.state is not ResourceState.STOPPED)


CHANGES = [
    replace(guest("a"), state=ResourceState.STOPPED),
    replace(guest("a"), state=ResourceState.DOWN, reason="it died", seq=7),
    guest("a", owner="green"),
    guest("a", host=N2),
    replace(guest("a"), kind=ResourceKind.SERVICE),
    guest("c"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_is_what_would_be_written_now(change: Resource) -> None:
    topology = Topology()
    topology.adopt(resources=[guest("a"), guest("b"), guest("z", host=N2)])
    for step in ([], [change], [guest("a")]):
        topology.adopt(resources=step)
        for host in (N1, N2):
            assert topology.running(host, encode_affected) == fresh(topology, host)


def test_a_change_of_state_alone_writes_nothing_again() -> None:
    topology = Topology()
    topology.adopt(resources=[guest("a")])
    kept = topology.running(N1, encode_affected)
    topology.adopt(resources=[replace(guest("a"), state=ResourceState.DOWN, seq=2)])
    assert topology.running(N1, encode_affected) is kept


def test_great_hosts_are_prepared_one_after_the_other() -> None:
    topology = Topology()
    topology.adopt(resources=[guest(f"a{n}") for n in range(LARGE_HOST)])
    topology.adopt(resources=[guest(f"b{n}", host=N2) for n in range(LARGE_HOST)])
    topology.adopt(resources=[guest("small", host=HostId("n3"))])
    left = []
    for _ in range(4):
        left.append(topology.unwritten(LARGE_HOST))
        affected.prepare_affected(topology)
    assert left == [N1, N2, None, None]
    topology.adopt(resources=[guest("one-more")])
    assert topology.unwritten(LARGE_HOST) == N1


@pytest.mark.parametrize("owners", [("blue",), ("blue", "green")])
def test_a_prepared_body_is_the_same_bytes(owners: tuple[str, ...]) -> None:
    topology = Topology()
    topology.adopt(resources=[guest(f"g{n:04}", owners[n % len(owners)]) for n in range(2 * LARGE_HOST)])
    affected.prepare_affected(topology)
    known = decode_affected(topology.running(N1, encode_affected))
    for reader in (Owner("blue"), INFRASTRUCTURE):
        bodies = []
        for hurt in (known, tuple(known)):
            picture = FaultPicture(
                FaultId("f-1"), FaultKind.HOST_DOWN, Severity.CRITICAL, "node/n1", INFRASTRUCTURE, "", 5, hurt
            )
            assert picture.affected_of(reader) == tuple(
                each for each in hurt if reader in (each.owner, INFRASTRUCTURE)
            )
            frame = RenderContext("s", "s", reader, 10**7)
            bodies.append(render(NoticeFormat.JSON, frame, picture, NoticeTransition.RAISED))
        assert bodies[0] == bodies[1]
        listed = orjson.loads(bodies[0])["fault"]["affected"]
        assert listed[0] == {"subject": "resource/g0000", "owner": "blue", "detail": "guest"}
        assert len(listed) == len(known.by_owner.get(reader, known))


def test_nobody_suffers() -> None:
    assert AffectedIndex().by_owner == {} and AffectedIndex().as_json == b"[]"
    assert AffectedIndex([Affected("resource/a", Owner("b"))]).by_owner[Owner("b")][0].subject == "resource/a"


def test_a_host_without_faults_ends_none() -> None:
    assert list(superseded(N1, [ResourceId(f"g{n}") for n in range(9)], {})) == []

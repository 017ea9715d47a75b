"""What every driver of the port `Cloud` does, whichever cloud it stands before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest

from homeostat.clouds.local import LocalCloud
from homeostat.contracts.nouns import HostId, Mark, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.fleet.model import AgentState, Node, Resource, Topology
from homeostat.kernel.errors import StoreUnavailable
from homeostat.ports import ActFailed, ActUnknown, Cloud, CloudView, MarkSucceeded
from homeostat.recovery.acts import marked
from simulated_cloud import CALLS_AT_ONCE, SimCloud

GUESTS = {"a": "n1", "b": "n1", "c": "n2"}


@dataclass
class Driven:
    """A cloud, what moves a guest in it, and what makes its next calls fail."""

    cloud: Cloud
    move: Callable[[str, str], None]
    fail: Callable[[], None]


def local() -> Driven:
    topology = Topology()
    topology.adopt(
        nodes=[Node(HostId(name), "b", "i", 0, AgentState.PRESENT, 1) for name in ("n1", "n2")],
        resources=[guest(name, host) for name, host in GUESTS.items()],
    )
    failing = False

    async def write(host: HostId, mark: Mark) -> None:
        await asyncio.sleep(0)
        if failing:
            raise StoreUnavailable("no database")
        topology.adopt(nodes=[marked(topology.nodes[host], mark, 5)])

    def move(name: str, host: str) -> None:
        topology.adopt(resources=[replace(topology.resources[ResourceId(name)], host=HostId(host))])

    def fail() -> None:
        nonlocal failing
        failing = True

    return Driven(LocalCloud(lambda: topology, write), move, fail)


def guest(name: str, host: str) -> Resource:
    kind, up = ResourceKind.GUEST, ResourceState.UP
    return Resource(ResourceId(name), HostId(host), kind, Owner("blue"), "ocf:x:y", up, "", 0, 1)


def simulated() -> Driven:
    place = dict(GUESTS)

    def guests(host: str) -> Iterable[str]:
        return [name for name, where in place.items() if where == host]

    cloud = SimCloud(guests)

    async def refuse(call: str) -> None:
        raise OSError(f"503 of {call}")

    return Driven(cloud, place.__setitem__, lambda: setattr(cloud, "call", refuse))


@pytest.fixture(params=[local, simulated], ids=["local", "sim"])
def driven(request: pytest.FixtureRequest) -> Driven:
    made: Driven = request.param()
    return made


async def shown(cloud: Cloud, host: str) -> CloudView:
    view = await cloud.look(host)
    assert isinstance(view, CloudView)
    return view


async def test_a_host_is_marked_and_its_guests_only_when_asked(driven: Driven) -> None:
    cloud = driven.cloud
    assert await shown(cloud, "n1") == CloudView(down=False, in_error=frozenset())
    assert isinstance(await cloud.mark_down("n1"), MarkSucceeded)
    assert await shown(cloud, "n1") == CloudView(down=True, in_error=frozenset())
    answer = await cloud.set_error("n1")
    assert isinstance(answer, MarkSucceeded)
    assert answer.count == 2
    assert await shown(cloud, "n1") == CloudView(down=True, in_error=frozenset({"a", "b"}))
    assert await shown(cloud, "n2") == CloudView(down=False, in_error=frozenset())


async def test_every_act_may_be_repeated(driven: Driven) -> None:
    cloud = driven.cloud
    for _ in range(2):
        assert isinstance(await cloud.mark_down("n1"), MarkSucceeded)
        assert isinstance(await cloud.set_error("n1"), MarkSucceeded)
    assert await shown(cloud, "n1") == CloudView(down=True, in_error=frozenset({"a", "b"}))
    for _ in range(2):
        assert isinstance(await cloud.mark_up("n1"), MarkSucceeded)
        assert isinstance(await cloud.clear_error("n1", ["a", "b"]), MarkSucceeded)
    assert await shown(cloud, "n1") == CloudView(down=False, in_error=frozenset())


async def test_a_guest_that_was_started_elsewhere_is_not_touched_by_the_return_of_its_host(
    driven: Driven,
) -> None:
    cloud = driven.cloud
    await cloud.mark_down("n1")
    await cloud.set_error("n1")
    driven.move("b", "n2")
    assert (await shown(cloud, "n1")).in_error == {"a"}
    await cloud.mark_up("n1")
    answer = await cloud.clear_error("n1", ["a", "b"])
    assert isinstance(answer, MarkSucceeded)
    assert answer.count == 1
    assert (await shown(cloud, "n1")).in_error == frozenset()


async def test_a_cloud_that_fails_says_so_and_shows_what_it_did_before(driven: Driven) -> None:
    driven.fail()
    for said in (await driven.cloud.mark_down("n1"), await driven.cloud.set_error("n1")):
        assert isinstance(said, ActFailed | ActUnknown)
        assert said.reason
    view = await driven.cloud.look("n1")
    assert not isinstance(view, CloudView) or view == CloudView(down=False, in_error=frozenset())


async def test_a_host_without_guests_is_marked_too(driven: Driven) -> None:
    driven.move("c", "n1")
    assert isinstance(await driven.cloud.mark_down("n2"), MarkSucceeded)
    answer = await driven.cloud.set_error("n2")
    assert isinstance(answer, MarkSucceeded)
    assert answer.count == 0


async def test_a_cloud_with_a_call_a_guest_makes_many_at_once_and_not_more_than_its_bound() -> None:
    cloud = SimCloud(lambda _: [f"g{number}" for number in range(50)])
    answer = await cloud.set_error("n1")
    assert isinstance(answer, MarkSucceeded)
    assert answer.count == 50
    assert cloud.busiest == CALLS_AT_ONCE

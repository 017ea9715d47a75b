"""I4 and I5 against journals made by hand: a good one, and each way to be wrong."""

from __future__ import annotations

import pytest

from homeostat.contracts.events.fleet import HostBack, HostDown, HostFenced
from homeostat.contracts.events.resources import GuestAssigned, GuestMoved, ResourceUp
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind
from homeostat.kernel.journal import Envelope, Seq
from homeostat.sim.checkers import Evidence, Record, fenced_first, one_host

G, BLUE = ResourceId("g"), Owner("blue")
N1, N2, N3 = HostId("n1"), HostId("n2"), HostId("n3")

Told = tuple[object, int | None]


def assigned(host: HostId = N1) -> Told:
    return GuestAssigned(G, BLUE, host, 1), None


def moved(before: HostId, to: HostId, generation: int, cause: int | None) -> Told:
    return GuestMoved(G, BLUE, before, to, generation), cause


def up(host: HostId) -> Told:
    return ResourceUp(G, host, ResourceKind.GUEST, BLUE, "it is up", 1), None


def down(host: HostId) -> Told:
    return HostDown(host, "silent", 1), None


def fenced(host: HostId) -> Told:
    return HostFenced(host, "command", "off"), None


def back(host: HostId) -> Told:
    return HostBack(host, "again", 1), None


def evidence(*told: Told) -> Evidence:
    """A journal whose events are numbered from 1."""
    events = tuple(
        Envelope(
            Seq(number),
            type(event).__name__,
            1,
            "resource/g",
            None if cause is None else Seq(cause),
            "t",
            number,
            "x",
            {},
            event,
        )
        for number, (event, cause) in enumerate(told, 1)
    )
    return Evidence(Record(events, (), (), ()))


GOOD = (assigned(), up(N1), down(N1), fenced(N1), moved(N1, N2, 2, 4), up(N2), back(N1))


@pytest.mark.seed("order no guest runs on two hosts")
@pytest.mark.seed("order no evacuation before the fencing receipt")
def test_a_guest_that_moves_after_the_receipt_and_comes_up_there_is_right() -> None:
    again = (down(N2), fenced(N2), moved(N2, N1, 3, 9), up(N1))
    good = evidence(*GOOD, *again)
    assert not list(one_host.check(good))
    assert not list(fenced_first.check(good))
    pruned = evidence(down(N1), fenced(N1), moved(N1, N2, 7, 2), up(N2))
    assert not list(one_host.check(pruned)), "its first assignment may have been pruned"


@pytest.mark.parametrize(
    "told",
    [
        pytest.param((*GOOD, up(N1)), id="up on the host that it left"),
        pytest.param((assigned(), up(N3)), id="up where it never was"),
        pytest.param((*GOOD, assigned(N3)), id="assigned twice"),
        pytest.param((*GOOD, moved(N1, N3, 3, 4)), id="moved from where it is not"),
        pytest.param((*GOOD, moved(N2, N3, 2, 4)), id="a generation twice"),
    ],
)
def test_a_guest_in_two_places_is_found(told: tuple[Told, ...]) -> None:
    assert [each.about for each in one_host.check(evidence(*told))] == ["resource/g"]


@pytest.mark.parametrize(
    "told",
    [
        pytest.param((assigned(), down(N1), moved(N1, N2, 2, 2)), id="no receipt"),
        pytest.param(
            (assigned(), down(N1), moved(N1, N2, 2, None), fenced(N1)), id="the receipt comes later"
        ),
        pytest.param((*GOOD[:4], back(N1), moved(N1, N2, 2, 4)), id="the host is back"),
        pytest.param((*GOOD[:4], back(N1), down(N1), moved(N1, N2, 2, 4)), id="the receipt of another death"),
        pytest.param((*GOOD[:4], moved(N1, N2, 2, 3)), id="another cause"),
        pytest.param((assigned(), fenced(N2), moved(N1, N2, 2, 2)), id="the receipt of another host"),
        pytest.param((*GOOD[:5], moved(N1, N3, 3, 4)), id="twice after one receipt"),
    ],
)
def test_a_move_without_its_receipt_is_found(told: tuple[Told, ...]) -> None:
    assert [each.about for each in fenced_first.check(evidence(*told))] == ["resource/g"]

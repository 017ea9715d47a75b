"""I4, I5 and lost guests against journals and stories made by hand: good ones, and each way to be wrong."""

from __future__ import annotations

import pytest

from homeostat.contracts.events.fleet import HostBack, HostDown, HostFenced
from homeostat.contracts.events.resources import GuestAssigned, GuestMoved, ResourceUp
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind
from homeostat.fleet.settings import FleetSettings, GateSettings
from homeostat.kernel.journal import Envelope, Seq
from homeostat.sim import history as story
from homeostat.sim.checkers import CheckerEvidence, DatabaseContents
from homeostat.sim.checkers import hosts as at_home
from homeostat.sim.checkers import hosts as fenced_first
from homeostat.sim.checkers import hosts as one_host

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


def evidence(*told: Told) -> CheckerEvidence:
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
    return CheckerEvidence(DatabaseContents(events, (), (), ()))


GOOD = (assigned(), up(N1), down(N1), fenced(N1), moved(N1, N2, 2, 4), up(N2), back(N1))


@pytest.mark.seed("order no guest runs on two hosts")
@pytest.mark.seed("order no evacuation before the fencing receipt")
def test_a_guest_that_moves_after_the_receipt_and_comes_up_there_is_right() -> None:
    again = (down(N2), fenced(N2), moved(N2, N1, 3, 9), up(N1))
    good = evidence(*GOOD, *again)
    assert not list(one_host.check_on_one_host(good))
    assert not list(fenced_first.check_fenced_before_moved(good))
    pruned = evidence(down(N1), fenced(N1), moved(N1, N2, 7, 2), up(N2))
    assert not list(one_host.check_on_one_host(pruned)), "its first assignment may have been pruned"


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
    assert [each.about for each in one_host.check_on_one_host(evidence(*told))] == ["resource/g"]


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
    assert [each.about for each in fenced_first.check_fenced_before_moved(evidence(*told))] == ["resource/g"]


def story_of(*facts: story.HistoryFact) -> CheckerEvidence:
    """What really happened, a second after each other, with an empty journal."""
    told = story.RunHistory(
        [story.HistoryLine(float(at_s), "world", fact) for at_s, fact in enumerate(facts)], guests=(G,)
    )
    fleet = FleetSettings(gate=GateSettings(armed=["recovery"]))
    return CheckerEvidence(DatabaseContents((), (), (), ()), told, fleet=fleet)


def starts(host: HostId) -> story.HistoryFact:
    return story.ActBegan(host, G, "start", f"a-{host}")


def runs(host: HostId) -> story.HistoryFact:
    return story.GuestRuns(G, host)


def ends(host: HostId) -> story.HistoryFact:
    return story.GuestEnded(G, host)


def dies(host: HostId) -> story.HistoryFact:
    return story.HostDied(host, "it dies")


REALLY_MOVED = (starts(N1), runs(N1), dies(N1), ends(N1), story.HostBooted(N1), starts(N2), runs(N2))


def test_a_process_that_ends_with_its_host_and_starts_elsewhere_is_right() -> None:
    good = story_of(*REALLY_MOVED)
    assert not [
        *one_host.check_on_one_host(good),
        *fenced_first.check_fenced_before_moved(good),
        *at_home.check_no_guest_lost(good),
    ]


def test_two_processes_of_a_guest_are_found_whatever_the_journal_says() -> None:
    twice = story_of(*REALLY_MOVED, runs(N3))
    assert [each.says for each in one_host.check_on_one_host(twice)] == [
        "at 7.000 s it begins to run on n3 and still runs on n2"
    ]


def test_a_start_elsewhere_while_its_host_was_never_off_is_found() -> None:
    early = story_of(starts(N1), runs(N1), ends(N1), starts(N2))
    assert [each.invariant for each in fenced_first.check_fenced_before_moved(early)] == [
        fenced_first.FENCED_BEFORE_MOVED
    ]
    again = story_of(*REALLY_MOVED, ends(N2), starts(N1))
    assert len(list(fenced_first.check_fenced_before_moved(again))) == 1, "what N1 was once off for is over"


def test_a_guest_that_runs_nowhere_in_the_end_is_lost() -> None:
    assert [each.about for each in at_home.check_no_guest_lost(story_of(*REALLY_MOVED, ends(N2)))] == [
        "resource/g"
    ]


def test_a_guest_that_stays_on_a_host_which_died_in_peace_is_lost() -> None:
    trial = story.DeathTrial(N1, 9.0)
    stays = story_of(starts(N1), runs(N1), trial, ends(N1), story.HostBooted(N1), runs(N1))
    lines = stays.story.lines if stays.story is not None else []
    lines[3] = story.HistoryLine(2.0, "world", ends(N1))
    lines[5] = story.HistoryLine(9.5, "world", runs(N1))
    assert [each.says for each in at_home.check_no_guest_lost(stays)] == [
        "its host died at 2.000 s and it was not started elsewhere"
    ]

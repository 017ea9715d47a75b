"""Guests that may also run elsewhere, kept by a real runner: what is assigned runs, what is not does not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from played_node import PlayedNode
from test_runner_process import service

from homeostat.contracts.nouns import Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.roles import Assigned
from homeostat.contracts.wire import Intent, ResourceStatus
from homeostat.kernel.processes import is_alive

MakeNode = Callable[..., PlayedNode]
UP, DOWN, STARTING = ResourceState.UP, ResourceState.DOWN, ResourceState.STARTING
STOPPED = ResourceState.STOPPED
G = ResourceId("g")


def guest(name: str = "g") -> dict[str, Any]:
    return {**service(name), "kind": "guest", "movable": True}


def assign(played: PlayedNode, generation: int | None = 1, *, confirmed: bool = True) -> None:
    played.send(Assigned({} if generation is None else {G: generation}, confirmed))


def runs(played: PlayedNode) -> bool:
    """Whether a process of the guest lives, by its pid file."""
    try:
        return is_alive(played.service("g"))
    except AssertionError:
        return False


def settled(played: PlayedNode) -> None:
    """Wait until a death of the fixed service has been noticed and repaired: the runner is at work."""
    played.reported("web", UP)
    before = len(played.reports)
    played.kill_service("web")
    played.reported("web", UP, after=before)


def about_guest(played: PlayedNode) -> list[tuple[ResourceState, int]]:
    return [(each.state, each.generation) for each in played.reports if each.resource == "g"]


@pytest.mark.seed("order a guest that is not assigned here is not started here")
def test_nothing_is_started_that_no_server_confirmed(node: MakeNode) -> None:
    played = node(service(), guest(), stable_s=0)
    played.start()
    settled(played)
    assert about_guest(played) == []
    assign(played, 4, confirmed=False)
    settled(played)
    assert about_guest(played) == [], "it may have been moved while we were away"
    assign(played, 4)
    played.reported("g", UP)
    assert about_guest(played) == [(STARTING, 4), (UP, 4)]


def test_one_that_runs_is_adopted_without_a_server_and_its_restarts_need_none(node: MakeNode) -> None:
    played = node(guest(), stable_s=0)
    played.start()
    assign(played)
    played.reported("g", UP)
    before = played.service("g")
    played.end()
    assert is_alive(before)
    told = len(played.reports)
    played.levels[G] = replace(played.levels[G], state=STARTING)  # so that it says that it is up
    played.start()
    assign(played, confirmed=False)
    played.reported("g", UP, after=told, why="adopted")
    played.kill_service("g")
    down = played.reported("g", DOWN, after=told)
    played.reported("g", UP, after=played.reports.index(down) + 1)
    assert played.service("g") != before


def test_one_that_leaves_is_stopped_and_then_there_is_silence(node: MakeNode) -> None:
    played = node(service(), guest(), stable_s=0)
    played.start()
    assign(played)
    played.reported("g", UP)
    before = played.service("g")
    assign(played, None)
    played.reported("g", STOPPED)
    assert not is_alive(before)
    assert played.open_intents == {}
    told = about_guest(played)
    settled(played)
    assert about_guest(played) == told
    assign(played, 3)
    played.reported("g", UP, after=len(played.reports))
    assert about_guest(played)[len(told) :] == [(STARTING, 3), (UP, 3)]


@pytest.mark.seed("order a guest found running where it is not assigned is stopped")
def test_one_that_is_found_and_does_not_belong_here_is_stopped(node: MakeNode) -> None:
    played = node(guest())
    played.start()
    assign(played)
    played.reported("g", UP)
    before = played.service("g")
    played.end()
    told = len(played.reports)
    played.start()
    assign(played, None, confirmed=False)
    assert is_alive(before)
    assign(played, None)
    stopped = played.reported("g", STOPPED, after=told)
    assert stopped.generation == 1, "it speaks of the assignment under which it ran"
    assert not is_alive(before)


def test_what_it_was_under_an_earlier_assignment_is_no_outage(node: MakeNode) -> None:
    played = node(guest())
    played.levels[G] = ResourceStatus(
        G, ResourceKind.GUEST, Owner("platform"), "ocf:homeostat:process", UP, "then", 1, 1, None, 1
    )
    played.open_intents[G] = Intent("g-then", "restart", 5.0, "it died")
    played.start()
    assign(played, 3)
    played.reported("g", UP)
    assert about_guest(played) == [(STARTING, 3), (UP, 3)]
    assert played.reports[0].finished is not None and played.reports[0].finished.action == "g-then"


def test_an_act_that_was_open_about_one_that_left_is_closed(node: MakeNode) -> None:
    played = node(guest())
    played.levels[G] = ResourceStatus(
        G, ResourceKind.GUEST, Owner("platform"), "ocf:homeostat:process", DOWN, "then", 1, 1, None, 1
    )
    played.open_intents[G] = Intent("g-then", "restart", 5.0, "it died")
    played.start()
    assign(played, None)
    stopped = played.reported("g", STOPPED, why="not_assigned")
    assert stopped.finished is not None and stopped.finished.action == "g-then"
    assert not runs(played)


def test_a_node_that_stops_takes_its_guests_with_it(node: MakeNode) -> None:
    played = node(guest(), guest("other"), on_stop="stop")
    played.start()
    assign(played)
    played.reported("g", UP)
    before = played.service("g")
    assert played.end(signal.SIGTERM) == 0
    assert not is_alive(before)
    assert about_guest(played)[-1] == (STOPPED, 1)
    assert not [each for each in played.reports if each.resource == "other"]

"""Servers are upgraded before nodes: a server reads what nodes of 0.2.0 send, and they read what it sends."""

from __future__ import annotations

import json

import pytest

from homeostat.contracts import wire
from homeostat.kernel.errors import BadInput

HEARTBEAT = {
    "host": "n1", "boot": "b", "incarnation": "i", "seq": 7, "digest": "d", "first": 1, "offers": "",
    "assigned": "",
}  # fmt: skip
LEVEL = {
    "resource": "web-n1", "kind": "service", "owner": "lab", "agent": "ocf:homeostat:process",
    "state": "down",
    "reason": "process_died", "at_ns": 5, "seq": 7, "pid": None, "generation": 0,
}  # fmt: skip
INTENT = {"action": "a-1", "verb": "restart", "deadline_s": 10.0, "reason": "process_died"}
TRANSITION = {"level": LEVEL, "mono_ns": 5, "intended": INTENT, "finished": None}
OBSERVATIONS = {"host": "n1", "boot": "b", "sent_mono_ns": 6, "first": 7, "transitions": [TRANSITION]}


def test_a_heartbeat_of_0_2_says_nothing_of_a_full_disk_or_of_what_it_looked_at() -> None:
    beat = wire.decode(wire.Heartbeat, json.dumps(HEARTBEAT).encode())
    assert (beat.seq, beat.store, beat.asks, beat.looked) == (7, "", False, None)


def test_an_observation_of_0_2_has_an_act_on_disk_and_no_last_good_moment() -> None:
    (seen,) = wire.decode(wire.Observations, json.dumps(OBSERVATIONS).encode()).transitions
    assert seen.intended is not None
    assert (seen.intended.uncommitted, seen.before_mono_ns) == (False, 0)


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (wire.Acknowledged, {"boot", "seq", "epoch"}),
        (wire.ResyncRequested, {"epoch", "reason"}),
        (wire.AssignmentGiven, {"epoch", "number", "incarnation", "mine"}),
        (wire.NodeRequest, {"question", "epoch", "words", "life", "until_ns"}),
    ],
)
def test_what_a_server_sends_has_no_field_that_a_node_of_0_2_does_not_know(
    message: type[object], fields: set[str]
) -> None:
    assert set(message.__dataclass_fields__) == fields  # type: ignore[attr-defined]


def test_a_field_of_a_later_version_is_refused_and_named() -> None:
    with pytest.raises(BadInput, match=r"Heartbeat\.later"):
        wire.decode(wire.Heartbeat, json.dumps(HEARTBEAT | {"later": True}).encode())

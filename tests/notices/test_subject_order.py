"""Each consumer reads of each thing in the order in which it happened, whatever fault a notice belongs to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import FaultId, FaultKind, Owner
from homeostat.kernel.journal import Seq
from homeostat.notices.model import Affected, FaultPicture, Notice, NoticeTransition, notice_key
from homeostat.notices.send_queue import DueNotice, SendLimits, SendQueue
from notices_parts import picture

LIMITS = SendLimits(per_subscription=8, per_place=8, suspects=4, circuit_after=99, waiting=1000)
GUEST = picture("f-guest", about="resource/a")
HOST = picture(
    "f-host",
    owner="infrastructure",
    kind=FaultKind.HOST_DOWN,
    about="node/n1",
    affected=(Affected("resource/a", Owner("shop")), Affected("resource/x", Owner("bank"))),
)


def due(shown: FaultPicture, transition: str, name: str = "s", seq: int = 1) -> DueNotice:
    change = NoticeTransition(transition)
    key = notice_key(name, shown.id, change)
    return DueNotice(Notice(key, name, Owner("shop"), shown.id, change, Seq(seq), 0, "t"), shown, 0, 10**15)


def proven(queue: SendQueue, name: str = "s") -> None:
    queue.add(due(picture("first", about="resource/first"), "raised", name), name)
    taken = queue.take(0)
    assert taken is not None
    queue.succeeded(taken)
    queue.closed(taken)


def drain(queue: SendQueue, now_ns: int) -> list[DueNotice]:
    found = []
    while (each := queue.take(now_ns)) is not None:
        found.append(each)
    return found


def keys(dues: list[DueNotice]) -> list[str]:
    return [each.key.partition(":")[2] for each in dues]


@pytest.mark.seed("002 1.2: the consumer switches over by the notice that it heard last")
def test_what_took_the_place_of_a_fault_is_told_before_its_end_also_with_a_retry() -> None:
    queue = SendQueue(LIMITS)
    proven(queue)
    for each in (due(GUEST, "raised"), due(HOST, "raised"), due(GUEST, "superseded")):
        queue.add(each, "p")
    (raised,) = drain(queue, 0)
    assert keys([raised]) == ["f-guest:raised"]
    queue.failed(raised, 100)
    assert drain(queue, 99) == []
    (raised,) = drain(queue, 100)
    queue.succeeded(raised)
    queue.closed(raised)
    (host,) = drain(queue, 100)
    assert keys([host]) == ["f-host:raised"]
    queue.failed(host, 200)
    assert drain(queue, 199) == [], "no word of the guest before its host is told"
    (host,) = drain(queue, 200)
    queue.succeeded(host)
    queue.closed(host)
    assert keys(drain(queue, 200)) == ["f-guest:superseded"]


def test_the_next_fault_of_a_thing_waits_for_the_end_of_the_last() -> None:
    queue = SendQueue(LIMITS)
    proven(queue)
    again = replace(GUEST, id=FaultId("f-again"))
    queue.add(due(GUEST, "cleared"), "p")
    queue.add(due(again, "raised"), "p")
    (cleared,) = drain(queue, 0)
    queue.failed(cleared, 100)
    assert keys(drain(queue, 100)) == ["f-guest:cleared"]


def test_others_do_not_wait() -> None:
    queue = SendQueue(LIMITS)
    proven(queue)
    proven(queue, "t")
    foreign = picture("f-x", about="resource/x")
    for each in (
        due(HOST, "raised"),
        due(GUEST, "raised", "t"),
        due(foreign, "raised"),
        due(picture("f-other", about="resource/other"), "raised"),
    ):
        queue.add(each, each.notice.destination)
    found = keys(drain(queue, 0))
    assert sorted(found) == ["f-guest:raised", "f-host:raised", "f-other:raised", "f-x:raised"]


THINGS = [f"resource/{name}" for name in "abc"]
STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["f1", "f2", "f3", "f4"]), st.booleans()), max_size=40
)


@given(STEPS, st.randoms(use_true_random=False))
def test_whatever_fails_nothing_overtakes_what_is_about_the_same_and_nothing_is_stuck(
    steps: list[tuple[int, str, bool]], chance: object
) -> None:
    hosts = {f"h{n}": tuple(Affected(each, Owner("shop")) for each in THINGS[:n]) for n in (2, 3)}
    queue, offered = SendQueue(LIMITS), []
    proven(queue)
    for number, (thing, fault, wide) in enumerate(steps):
        name = f"{fault}-{number}"
        shown = (
            picture(name, about="node/n1", kind=FaultKind.HOST_DOWN, affected=hosts["h2"])
            if wide
            else picture(name, about=(*THINGS, "resource/d")[thing])
        )
        each = due(shown, "raised", seq=number)
        offered.append(each)
        queue.add(each, "p")
    told: list[DueNotice] = []
    for now_ns in range(1, 4 * len(steps) + 2):
        taken = drain(queue, now_ns)
        chance.shuffle(taken)  # type: ignore[attr-defined]
        for each in taken:
            if each.attempts < 2 and chance.random() < 0.3:  # type: ignore[attr-defined]
                queue.failed(each, now_ns + 1)
            else:
                queue.succeeded(each)
                queue.closed(each)
                told.append(each)
    assert len(told) == len(offered)

    def about(each: DueNotice) -> set[str]:
        assert each.picture is not None
        return {each.picture.about, *(it.subject for it in each.picture.affected)}

    for place, later in enumerate(told):
        for earlier in told[:place]:
            if about(earlier) & about(later):
                assert int(earlier.notice.queued_seq) < int(later.notice.queued_seq)  # type: ignore[arg-type]

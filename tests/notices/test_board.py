"""The board: order, limits, and that nothing is ever stuck. Time is a number here."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat.contracts.nouns import FaultId, Owner
from homeostat.kernel.journal import Seq
from homeostat.notices.model import Notice, NoticeTransition, notice_key
from homeostat.notices.send_queue import DueNotice, SendLimits, SendQueue

LIMITS = SendLimits(per_subscription=2, per_place=3, suspects=2, circuit_after=3, waiting=1000)
FOR_EVER = 10**15


def due(subscription: str, fault: str, transition: str = "raised", give_up_ns: int = FOR_EVER) -> DueNotice:
    change = NoticeTransition(transition)
    key = notice_key(subscription, FaultId(fault), change)
    notice = Notice(key, subscription, Owner("shop"), FaultId(fault), change, Seq(1), 0, "t")
    return DueNotice(notice, None, 0, give_up_ns)


def proven(board: SendQueue, *names: str) -> None:
    for name in names:
        board.add(due(name, "first"), name)
        taken = board.take(0)
        assert taken is not None and taken.notice.subscription == name
        board.succeeded(taken)
        board.closed(taken)


def drain(board: SendQueue, now_ns: int) -> list[DueNotice]:
    found = []
    while (each := board.take(now_ns)) is not None:
        found.append(each)
    return found


def test_cleared_waits_for_the_commit_of_raised() -> None:
    board = SendQueue(LIMITS)
    board.add(due("s", "f"), "p")
    board.add(due("s", "f", "cleared"), "p")
    (raised,) = drain(board, 0)
    assert raised.key == "s:f:raised"
    board.succeeded(raised)
    assert drain(board, 0) == []
    board.closed(raised)
    assert [each.key for each in drain(board, 0)] == ["s:f:cleared"]


def test_a_failure_waits_and_keeps_its_place() -> None:
    board = SendQueue(LIMITS)
    board.add(due("s", "f"), "p")
    board.add(due("s", "f", "cleared"), "p")
    board.failed(drain(board, 0)[0], next_ns=500)
    assert drain(board, 499) == []
    assert board.next_ns() == 500
    (again,) = drain(board, 500)
    assert (again.key, again.attempts) == ("s:f:raised", 1)


def test_the_next_attempt_that_is_shown_is_the_one_that_is_made() -> None:
    """A broken circuit lets nobody through before its probe; until it breaks each notice has its own time."""
    board = SendQueue(LIMITS)
    board.add(due("s", "f1"), "p")
    board.add(due("s", "f2"), "p")
    board.failed(drain(board, 0)[0], next_ns=100)
    board.failed(drain(board, 0)[0], next_ns=200)
    assert {each.notice.fault: at_ns for each, at_ns in board.progress()} == {"f1": 100, "f2": 200}
    (first,) = drain(board, 100)
    assert first.notice.fault == "f1"
    board.failed(first, next_ns=300)
    assert {each.notice.fault: at_ns for each, at_ns in board.progress()} == {"f1": 300, "f2": 300}
    assert drain(board, 299) == []
    (probe,) = drain(board, 300)
    assert probe.notice.fault == "f2"


def test_one_subscription_has_a_bound_and_a_new_one_starts_with_one() -> None:
    board = SendQueue(LIMITS)
    for index in range(5):
        board.add(due("s", f"f{index}"), "p")
    (first,) = drain(board, 0)
    board.succeeded(first)
    assert len(drain(board, 0)) == 2


def test_one_host_has_a_bound_across_subscriptions() -> None:
    board = SendQueue(LIMITS)
    for index in range(6):
        board.add(due(f"s{index}", "f"), "same")
    board.add(due("other", "f"), "elsewhere")
    taken = drain(board, 0)
    assert Counter(each.notice.subscription == "other" for each in taken) == {False: 3, True: 1}
    board.succeeded(next(each for each in taken if each.notice.subscription != "other"))
    assert len(drain(board, 0)) == 1


def test_the_dead_share_few_workers() -> None:
    board = SendQueue(LIMITS)
    for index in range(5):
        board.add(due(f"dead{index}", "f"), f"p{index}")
    for each in drain(board, 0):
        board.failed(each, next_ns=10)
    assert len(drain(board, 10)) == 2
    board.add(due("alive", "f"), "q")
    assert [each.notice.subscription for each in drain(board, 10)] == ["alive"]


def test_a_broken_circuit_sends_probes_and_a_success_lets_all_go() -> None:
    board = SendQueue(LIMITS)
    proven(board, "s")
    for index in range(4):
        board.add(due("s", f"f{index}"), "p")
    now_ns = 0
    for _ in range(3):
        (first, *more) = drain(board, now_ns)
        for each in (first, *more):
            board.failed(each, next_ns=now_ns + 1000)
        now_ns += 1000
    assert board.suspects() == ("s",)
    (probe,) = drain(board, now_ns)
    assert drain(board, now_ns) == []
    board.failed(probe, next_ns=now_ns + 5000)
    assert drain(board, now_ns + 4999) == []
    (probe,) = drain(board, now_ns + 5000)
    board.succeeded(probe)
    board.closed(probe)
    assert len(drain(board, now_ns + 5000)) == 2
    assert board.suspects() == ()


def test_what_is_too_old_is_given_back_in_order_even_when_it_may_not_be_sent() -> None:
    board = SendQueue(LIMITS)
    board.add(due("s", "busy"), "p")
    (probe,) = drain(board, 0)
    board.add(due("s", "f", give_up_ns=100), "p")
    board.add(due("s", "f", "cleared", give_up_ns=100), "p")
    assert board.expired(99) == ()
    (raised,) = board.expired(100)
    assert raised.key == "s:f:raised"
    assert board.expired(100) == ()
    board.closed(raised)
    (cleared,) = board.expired(100)
    board.closed(cleared)
    board.succeeded(probe)
    board.closed(probe)
    assert len(board) == 0
    assert drain(board, 10**9) == []


def test_what_grew_too_old_in_flight_is_given_back_when_it_fails() -> None:
    board = SendQueue(LIMITS)
    board.add(due("s", "f", give_up_ns=100), "p")
    flying = board.take(0)
    assert flying is not None
    assert board.expired(150) == ()
    board.failed(flying, 10**6)
    assert board.next_ns() == 100, "nobody waits for its next attempt"
    (old,) = board.expired(150)
    assert old.key == flying.key


def test_a_full_line_refuses_and_a_known_key_is_no_second_notice() -> None:
    board = SendQueue(SendLimits(2, 3, 2, 3, waiting=2))
    assert board.add(due("s", "f1"), "p")
    assert board.add(due("s", "f1"), "p")
    assert board.add(due("s", "f2"), "p")
    assert not board.add(due("s", "f3"), "p")
    assert board.add(due("t", "f3"), "p")
    assert (len(board), board.waiting("s"), "s:f3:raised" in board) == (3, 2, False)


def test_release_looks_at_a_suspect_now() -> None:
    board = SendQueue(LIMITS)
    for index in range(3):
        board.add(due("s", f"f{index}"), "p")
    for now_ns in range(5):
        for each in drain(board, now_ns):
            board.failed(each, next_ns=now_ns + 1 if now_ns < 4 else FOR_EVER)
    assert drain(board, 10**9) == []
    board.release("s")
    assert len(drain(board, 10**9)) == 1


def test_a_long_life_leaves_nothing_behind() -> None:
    board = SendQueue(LIMITS)
    for index in range(5000):
        board.add(due("s", f"f{index}"), "p")
        for each in drain(board, index):
            board.succeeded(each)
            board.closed(each)
    assert len(board) == 0
    assert len(board._ages) < 2_500 and len(board._turns) < 2_500
    assert not board._flights_by_place and not board._flights


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "take", "ok", "fail", "close", "commit", "wait", "release"]),
        st.integers(0, 5),
        st.integers(0, 3),
    ),
    max_size=200,
)


class Story:
    """A board with what flies and what waits for its commit; checks the limits at every take."""

    def __init__(self) -> None:
        self.board, self.now_ns = SendQueue(LIMITS), 0
        self.flying: list[DueNotice] = []
        self.ending: list[DueNotice] = []
        self.added: list[str] = []
        self.ended: list[str] = []

    def add(self, a: int, b: int) -> None:
        raised = notice_key(f"s{a}", FaultId(f"f{b}"), NoticeTransition.RAISED)
        each = due(f"s{a}", f"f{b}", "cleared" if raised in self.added else "raised")
        if each.key not in self.added:
            assert self.board.add(each, f"p{a % 2}")
            self.added.append(each.key)

    def take(self, _a: int, _b: int) -> None:
        taken = self.board.take(self.now_ns)
        if taken is None:
            return
        self.flying.append(taken)
        lanes = [(each.notice.subscription, each.notice.fault) for each in self.flying + self.ending]
        assert len(set(lanes)) == len(lanes)
        assert max(Counter(each.notice.subscription for each in self.flying).values()) <= 2
        assert max(Counter(int(each.notice.subscription[1]) % 2 for each in self.flying).values()) <= 3

    def ok(self, a: int, _b: int) -> None:
        if self.flying:
            each = self.flying.pop(a % len(self.flying))
            self.board.succeeded(each)
            self.ending.append(each)

    def close(self, a: int, _b: int) -> None:
        if self.flying:
            each = self.flying.pop(a % len(self.flying))
            self.board.closing(each)
            self.ending.append(each)

    def fail(self, a: int, b: int) -> None:
        if self.flying:
            self.board.failed(self.flying.pop(a % len(self.flying)), self.now_ns + 10 * (b + 1))

    def commit(self, a: int, _b: int) -> None:
        if self.ending:
            each = self.ending.pop(a % len(self.ending))
            self.board.closed(each)
            self.ended.append(each.key)

    def release(self, a: int, _b: int) -> None:
        self.board.release(f"s{a}")

    def wait(self, _a: int, _b: int) -> None:
        self.now_ns += 7

    def finish(self) -> None:
        for _ in range(10 * len(self.added) + 10):
            self.now_ns += 1000
            self.flying.extend(drain(self.board, self.now_ns))
            while self.flying:
                self.ok(0, 0)
            while self.ending:
                self.commit(0, 0)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_happens_order_and_limits_hold_and_all_is_sent_in_the_end(
    steps: list[tuple[str, int, int]],
) -> None:
    story = Story()
    for verb, a, b in steps:
        getattr(story, verb)(a, b)
    story.finish()
    assert sorted(story.ended) == sorted(story.added)
    assert len(story.board) == 0
    for key in story.ended:
        if key.endswith(":cleared"):
            assert story.ended.index(key.replace(":cleared", ":raised")) < story.ended.index(key)


def test_when_a_circuit_closes_nothing_waits_for_its_own_back_off() -> None:
    board = SendQueue(LIMITS)
    for index in range(3):
        board.add(due("s", f"f{index}"), "p")
    for now_ns in range(3):
        (each,) = drain(board, now_ns)
        board.failed(each, next_ns=10 if now_ns == 2 else 10**12)
    (probe,) = drain(board, 10)
    board.succeeded(probe)
    board.closed(probe)
    assert len(drain(board, 10)) == 2


def test_suspects_that_had_to_wait_for_a_worker_get_one() -> None:
    board = SendQueue(LIMITS)
    for index in range(6):
        board.add(due(f"s{index}", "f"), f"p{index}")
    for each in drain(board, 0):
        board.failed(each, next_ns=10)
    seen = []
    while flying := drain(board, 10):
        assert len(flying) <= 2
        for each in flying:
            seen.append(each.notice.subscription)
            board.failed(each, next_ns=1000)
    assert sorted(seen) == [f"s{index}" for index in range(6)]

"""The order among the notices of one destination stays small, however many wait."""

from __future__ import annotations

from homeostat.notices.subject_order import NoticeSubjects, SubjectOrder

MANY = 2_000
GUESTS = tuple(f"resource/{number}" for number in range(50))
HOST = NoticeSubjects("node/n1", frozenset(GUESTS))


def waiting_for(order: SubjectOrder) -> int:
    return sum(map(len, order.waits.values()))


def ended_in_turn(order: SubjectOrder, entered: list[str]) -> list[str]:
    """The keys as they end, when each ends as soon as it waits for nothing."""
    free, ended = [key for key in entered if key not in order.waits], []
    while free:
        ended.append(free.pop(0))
        free.extend(order.leave(ended[-1]))
    return ended


def test_each_notice_of_one_thing_waits_for_the_one_before_it_only() -> None:
    order = SubjectOrder()
    keys = [f"k{number}" for number in range(MANY)]
    for key in keys:
        order.enter(key, NoticeSubjects("resource/a"))
    assert waiting_for(order) == MANY - 1
    assert ended_in_turn(order, keys) == keys


def test_each_notice_of_a_host_waits_for_the_last_word_of_each_guest_only() -> None:
    order = SubjectOrder()
    guests = [f"g{number}" for number in range(len(GUESTS))]
    for key, guest in zip(guests, GUESTS, strict=True):
        order.enter(key, NoticeSubjects(guest))
    hosts = [f"h{number}" for number in range(MANY)]
    for number, key in enumerate(hosts):
        order.enter(key, NoticeSubjects("node/n1", HOST.others - {GUESTS[number % 2]}))
    assert waiting_for(order) <= len(GUESTS) + 2 * MANY
    assert ended_in_turn(order, [*guests, *hosts]) == [*guests, *hosts]


def test_between_two_notices_of_a_host_its_guests_are_told_as_they_come() -> None:
    order = SubjectOrder()
    entered = []
    for number in range(MANY):
        key = f"k{number}"
        about = HOST if number % 10 == 0 else NoticeSubjects(GUESTS[number % len(GUESTS)])
        order.enter(key, about)
        entered.append(key)
    assert waiting_for(order) <= 2 * MANY
    ended = ended_in_turn(order, entered)
    assert sorted(ended) == sorted(entered)
    of_host = [key for key in ended if int(key[1:]) % 10 == 0]
    assert of_host == [key for key in entered if int(key[1:]) % 10 == 0]


def test_nothing_is_kept_of_what_has_ended() -> None:
    order = SubjectOrder()
    entered = [f"k{number}" for number in range(100)]
    for number, key in enumerate(entered):
        order.enter(key, HOST if number % 3 == 0 else NoticeSubjects(GUESTS[number % 7]))
    assert len(ended_in_turn(order, entered)) == 100
    assert order == SubjectOrder()

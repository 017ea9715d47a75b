"""Events of notices as older journals have them."""

from __future__ import annotations

from homeostat.components import catalogue
from homeostat.contracts.events.notices import NoticeDelivered


def test_a_delivery_of_an_older_journal_is_read_without_the_moments_it_did_not_have() -> None:
    old = {"key": "s:f-1:raised", "subscription": "s", "attempts": 2}
    assert catalogue().decode("NoticeDelivered", 1, old) == NoticeDelivered(
        "s:f-1:raised", "s", 2, None, None
    )
    second = {**old, "offered_ns": 5, "sent_ns": 6}
    assert catalogue().decode("NoticeDelivered", 2, second) == NoticeDelivered("s:f-1:raised", "s", 2, 5, 6)
    now = NoticeDelivered("s:f-1:raised", "s", 2, 5, 6)
    kind, version, payload = catalogue().encode(now)
    assert (kind, version) == ("NoticeDelivered", 3)
    assert b'"sent_ns":6' in payload

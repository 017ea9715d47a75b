"""What becomes of a notice after an attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.notices.requests import (
    Delivered,
    DeliveryAttempt,
    GivenUp,
    GiveUpReason,
    Retry,
    backoff_s,
    judge,
)
from homeostat.notices.settings import NoticesSettings
from homeostat.ports import NoWebhookReply, WebhookRefused, WebhookReply, WebhookResult

SETTINGS = NoticesSettings()
FRESH = DeliveryAttempt(number=1, left_s=1000)

replies = st.one_of(
    st.builds(WebhookReply, st.integers(100, 599), st.none() | st.floats(0, 1e9)),
    st.builds(NoWebhookReply, st.just("timeout")),
    st.builds(WebhookRefused, st.just("private")),
)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_the_only_delivery(status: int) -> None:
    assert judge(WebhookReply(status), FRESH, 0.0, SETTINGS) == Delivered()


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        (NoWebhookReply("timeout"), 0.2),
        (WebhookReply(500), 0.2),
        (WebhookReply(503), 0.2),
        (WebhookReply(408), 0.2),
        (WebhookReply(425), 0.2),
        (WebhookReply(429), 0.2),
        (WebhookReply(429, retry_after_s=7.0), 7.0),
        (WebhookReply(503, retry_after_s=1e9), 300.0),
        (WebhookReply(301), 5.0),
        (WebhookReply(100), 5.0),
        (WebhookReply(401), 5.0),
        (WebhookReply(404), 5.0),
        (WebhookReply(413), 5.0),
        (WebhookRefused("10.0.0.1 is not a public address"), 5.0),
    ],
)
def test_what_is_tried_again_and_when(reply: WebhookResult, wait_s: float) -> None:
    verdict = judge(reply, FRESH, 1.0, SETTINGS)
    assert isinstance(verdict, Retry)
    assert verdict.wait_s == pytest.approx(wait_s)
    assert verdict.reason


def test_gone_ends_it_at_once() -> None:
    assert judge(WebhookReply(410), FRESH, 0.0, SETTINGS) == GivenUp(GiveUpReason.GONE)


def test_too_old_ends_it_with_what_was_met_last() -> None:
    verdict = judge(WebhookReply(503), DeliveryAttempt(9, 0.0), 0.0, SETTINGS)
    assert verdict == GivenUp(GiveUpReason.TOO_OLD, "the consumer answered 503")
    assert str(verdict) == "no attempt succeeded in time; the consumer answered 503"


@given(failures=st.integers(1, 10**9), jitter=st.floats(0, 1, exclude_max=True), soon=st.booleans())
def test_the_back_off_is_bounded_and_grows(failures: int, jitter: float, soon: bool) -> None:
    first_s, longest_s = (0.2, 30.0) if soon else (5.0, 300.0)
    wait_s = backoff_s(failures, jitter, SETTINGS, soon=soon)
    assert first_s / 2 <= wait_s <= longest_s
    assert backoff_s(failures + 1, jitter, SETTINGS, soon=soon) >= wait_s


@given(reply=replies, number=st.integers(1, 1000), left_s=st.floats(-1e6, 1e6), jitter=st.floats(0, 0.99))
def test_every_reply_has_a_verdict(reply: WebhookResult, number: int, left_s: float, jitter: float) -> None:
    match judge(reply, DeliveryAttempt(number, left_s), jitter, SETTINGS):
        case Delivered():
            assert isinstance(reply, WebhookReply) and 200 <= reply.status < 300
        case Retry(wait_s=wait_s):
            assert left_s > 0
            assert 0.1 <= wait_s <= 300.0
        case GivenUp(reason=reason):
            assert reason is GiveUpReason.GONE or left_s <= 0


def test_a_day_of_silence_is_about_three_thousand_attempts() -> None:
    waited_s, attempts = 0.0, 0
    while waited_s < SETTINGS.give_up_after_s:
        attempts += 1
        waited_s += backoff_s(attempts, 0.5, SETTINGS)
    assert 2_000 < attempts < 6_000

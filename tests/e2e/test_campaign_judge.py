"""Which of the prober's outages a fault is about."""

from __future__ import annotations

from campaign_judge import NANO, TrueOutage, one_story


def outage(died_s: float, back_s: float) -> TrueOutage:
    """Known to 20 ms at both ends."""
    died_ns, back_ns = round(died_s * NANO), round(back_s * NANO)
    return TrueOutage((died_ns - 10**7, died_ns + 10**7), (back_ns - 10**7, back_ns + 10**7))


def test_a_fault_that_goes_on_is_about_all_of_its_failures() -> None:
    truth = [outage(10, 12.6), outage(12.7, 16.6), outage(17.9, 19)]
    story = one_story(truth, round(10.01 * NANO), round(16.65 * NANO))
    assert story == TrueOutage(truth[0].died, truth[1].back)


def test_what_was_right_for_its_hold_in_between_cannot_be_told_apart() -> None:
    assert one_story([outage(10, 12), outage(13, 15)], 10 * NANO, 15 * NANO) is None
    assert one_story([], 10 * NANO, 15 * NANO) is None


def test_a_fault_that_was_noticed_late_is_about_what_ended_just_before() -> None:
    truth = [outage(10, 10.2)]
    assert one_story(truth, round(10.5 * NANO), round(10.6 * NANO)) == truth[0]

"""What becomes of a notice after an attempt: delivered, again later, or given up. Pure.

A consumer's 2xx is the only delivery. 410 Gone ends it at once: the consumer said that nobody will ever be
there. 408, 425, 429, 5xx and silence are retried with a fast back-off; every other answer (a redirect, 401,
404, 413) hardly changes by itself and is retried slowly, since a person may repair it within the day. Where
several travelled together, a smaller group may be taken at once, so it is tried soon. An age ends all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from homeostat.notices.settings import NoticesSettings
from homeostat.ports import Answered, NoAnswer, Refused, Reply

_SOON = frozenset({408, 425, 429})
_DOUBLINGS_MAX = 40


class GiveUpReason(Enum):
    """Why a consumer was not told."""

    GONE = "the consumer answered 410 Gone"
    TOO_OLD = "no attempt succeeded in time"
    SUBSCRIPTION_REMOVED = "the subscription was removed"
    SUBSCRIPTION_EXPIRED = "the subscription's time is over"
    ENDPOINT_REMOVED = "the endpoint was removed from its subscription"
    NOT_YOURS = "the subscription now belongs to another project"
    FAULT_FORGOTTEN = "the fault is no longer known, so there is nothing to say about it"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The consumer has it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not before `wait_s` from now."""

    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Never again. `detail` is what the last attempt met."""

    reason: GiveUpReason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.value}; {self.detail}" if self.detail else self.reason.value


Verdict = Delivered | Retry | GivenUp


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that ended. `number` starts at 1, `left_s` is the time until the notice is too old.

    `together` is how many notices it was.
    """

    number: int
    left_s: float
    together: int = 1


def is_refused_as_it_is(reply: Reply) -> bool:
    """Whether this very body would be refused for ever, though parts of it might not be."""
    match reply:
        case Answered(status=status):
            return 400 <= status < 500 and status != 410 and status not in _SOON
        case _:
            return False


def judge(reply: Reply, attempt: Attempt, jitter: float, settings: NoticesSettings) -> Verdict:
    """What follows from the reply. `jitter` is in [0, 1); the same arguments give the same verdict."""
    match reply:
        case Answered(status=status) if 200 <= status < 300:
            return Delivered()
        case Answered(status=410):
            return GivenUp(GiveUpReason.GONE)
        case Answered(status=status, retry_after_s=retry_after_s):
            soon = status >= 500 or status in _SOON
            soon = soon or (attempt.together > 1 and is_refused_as_it_is(reply))
            detail, asked_s = f"the consumer answered {status}", retry_after_s or 0.0
        case NoAnswer(reason=reason):
            soon, detail, asked_s = True, reason, 0.0
        case Refused(reason=reason):
            soon, detail, asked_s = False, reason, 0.0
        case _:
            assert_never(reply)
    if attempt.left_s <= 0:
        return GivenUp(GiveUpReason.TOO_OLD, detail)
    wait_s = backoff_s(attempt.number, jitter, settings, soon=soon)
    return Retry(max(wait_s, min(asked_s, settings.retry_after_longest_s)), detail)


def backoff_s(failures: int, jitter: float, settings: NoticesSettings, *, soon: bool = True) -> float:
    """The wait after `failures` (1 or more): doubled each time, bounded, its upper half is jitter."""
    first_s = settings.first_wait_s if soon else settings.refused_first_wait_s
    longest_s = settings.longest_wait_s if soon else settings.refused_longest_wait_s
    whole_s = min(longest_s, first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))
    return whole_s * (0.5 + 0.5 * jitter)

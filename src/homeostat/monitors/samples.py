"""One sample of a monitor, and its line in the monitor's file.

No clock and no network here. All moments are nanoseconds of CLOCK_BOOTTIME on the prober's own host: they can
be subtracted from each other and from nothing else. A sample says what was seen, never what it means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from homeostat.kernel.errors import CorruptState


class Answer(StrEnum):
    """What came of one probe."""

    OK = "ok"
    LATE = "late"
    """A good answer, but later than a client would put up with: somebody held it."""
    REFUSED = "refused"
    ERROR = "error"
    """A wrong answer (503), or a connection that ended without one."""
    UNTRUSTED = "untrusted"
    """Its certificate could not be verified, so it was not asked."""
    TIMEOUT = "timeout"
    CLIENT_ERROR = "client_error"
    """Our own machine could not even ask; says nothing about the service."""


SERVED = frozenset({Answer.OK, Answer.LATE})
FAILED = frozenset({Answer.REFUSED, Answer.ERROR, Answer.UNTRUSTED, Answer.TIMEOUT})
"""What the source document calls a response failure."""


class Sample(NamedTuple):
    """When it was due, when it was sent, when its end was known. `fresh`: on a new connection.

    A tuple, since a monitor makes one every few milliseconds and a dataclass costs three times as much.
    """

    scheduled_ns: int
    sent_ns: int
    done_ns: int
    answer: Answer
    fresh: bool = False
    status: int = 0
    """The HTTP status, 0 when there was none."""

    @property
    def lateness_ns(self) -> int:
        """How much too late the prober itself was."""
        return max(0, self.sent_ns - self.scheduled_ns)


def line_of(sample: Sample) -> str:
    """One line of JSON: `[scheduled, sent, done, answer, fresh, status]`."""
    return '[%d,%d,%d,"%s",%d,%d]\n' % sample  # noqa: UP031  half of what an f-string costs here


def samples_of(lines: Iterable[str], where: str = "samples") -> tuple[Sample, ...]:
    """The samples of these lines, by the time they were sent.

    A last line without its end is what a killed monitor leaves, and is left out; any other line that is not
    a sample raises CorruptState with its number.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            scheduled, sent, done, answer, fresh, status = json.loads(line)
            found.append(
                Sample(int(scheduled), int(sent), int(done), Answer(answer), bool(fresh), int(status))
            )
        except (ValueError, TypeError) as error:
            raise CorruptState(f"{where}: line {number} is not a sample ({error})") from None
    return tuple(sorted(found, key=lambda sample: sample.sent_ns))


def read_samples(path: Path) -> tuple[Sample, ...]:
    """The samples of a monitor's file; none when there is no file."""
    try:
        with path.open(encoding="utf-8") as file:
            return samples_of(file, str(path))
    except FileNotFoundError:
        return ()

"""The private nouns of supervision: where one resource stands, what can happen to it, what can be done.

Frozen values only; what follows from what is decided in `supervision.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from homeostat.contracts.nouns import ResourceState
from homeostat.contracts.wire import Finish, Intent
from homeostat.resources.ocf import Answer

_DETAIL_MAX = 200


class Reason(Enum):
    """Why a step was taken. The text of a report is `<name in lower case>: <sentence> (<detail>)`."""

    FIRST_START = "it should run and does not yet; it is being started"
    ADOPTED = "it runs; nothing was done to it"
    STARTED = "it was started and its monitor confirms it"
    RESTARTED = "it was restarted and its monitor confirms it"
    PROCESS_DIED = "its process ended"
    NOT_RUNNING = "its monitor says that it does not run"
    MONITOR_FAILED = "its monitor reports an error"
    MONITOR_TIMED_OUT = "its monitor did not answer within its timeout"
    WENT_AWAY_UNWATCHED = "it was up when it was last seen and does not run now; nobody was watching"
    RETRY = "it is still not up; the next attempt begins"
    AGENT_REFUSES = "its agent reports an error that a repeat is unlikely to cure; the next try comes late"
    START_FAILED = "its start failed"
    START_TIMED_OUT = "its start did not end within its timeout; the agent was killed"
    START_NOT_CONFIRMED = "its start reported success but its monitor does not confirm it"
    STOP_FAILED = "its stop failed; it is not started as it may still run"
    STOP_TIMED_OUT = "its stop did not end within its timeout; it is not started as it may still run"
    STOP_ASKED = "the node stops and takes its resources with it"
    STOPPED = "it was stopped and its monitor confirms it"
    STOP_NOT_CONFIRMED = "its stop reported success but its monitor does not confirm it"
    INTERRUPTED = "the act was cut short because the node stops"
    SEEN_AFTERWARDS = "the runner ended during the act; judged by what the first look afterwards showed"

    def told(self, detail: str = "") -> str:
        """The reason as reports carry it."""
        text = f"{self.name.lower()}: {self.value}"
        return f"{text} ({detail[:_DETAIL_MAX]})" if detail else text


class Phase(Enum):
    """What the standing waits for: the end of an action, a time, or a report to be on disk before it."""

    PROBING = "a first look"
    CLEARING = "the stop of a restart"
    STARTING = "the start"
    CONFIRMING = "the look after a start"
    UP = "the next monitor, or death"
    BACKING_OFF = "the next attempt"
    LAST_STOP = "the stop that ends it"
    LAST_LOOK = "the look after that stop"
    ENDED = "nothing"


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of one resource. All in seconds; see the settings for what they do."""

    start_s: float
    stop_s: float
    monitor_s: float
    interval_s: float
    stable_s: float
    backoff_most_s: float

    def backoff_s(self, attempts: int) -> float:
        """The pause before the next attempt after `attempts` in a row: 0, 1, 2, 4 ... the longest."""
        return 0.0 if attempts == 0 else min(self.backoff_most_s, 2.0 ** min(attempts - 1, 20))


@dataclass(frozen=True, slots=True)
class Now:
    """When the event was seen, and an id that no act ever had, should one be intended."""

    mono_ns: int
    action: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one resource stands. `level` and `told` are what was last reported."""

    phase: Phase = Phase.PROBING
    level: ResourceState | None = None
    told: str = ""
    act: Intent | None = None
    act_began_ns: int | None = None
    attempts: int = 0
    up_since_ns: int | None = None
    due_ns: int = 0


@dataclass(frozen=True, slots=True)
class Remembered:
    """The first event: what was last reported, and an act that nobody saw the end of."""

    level: ResourceState | None
    act: Intent | None


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The last `Tell` is recorded."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The action of the last `Run` ended."""

    answer: Answer
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a watched resource is gone."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """The time of the last `Wait` has come."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The node stops and on_stop says so. Whatever ran before is over or was killed."""


Event = Remembered | OnDisk | Answered | Died | Due | StopAsked


@dataclass(frozen=True, slots=True)
class Run:
    """Run one action of the agent. A probe is a monitor with interval 0; `watched` may end in `Died`."""

    verb: str
    timeout_s: float
    interval_s: float = 0.0
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """Report, and go on when that is on disk. `unwatched`: nobody saw when it became so."""

    state: ResourceState
    reason: str
    intended: Intent | None = None
    finished: Finish | None = None
    unwatched: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until `until_ns` on the monotonic clock; `watched` may end in `Died`."""

    until_ns: int
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is left to do."""


Step = Run | Tell | Wait | Leave

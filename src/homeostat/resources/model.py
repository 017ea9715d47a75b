"""The records of supervision: the state of one resource, the events that reach it, and the steps that
follow.

Frozen values only; what follows from what is decided in `supervision.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from homeostat.contracts.nouns import ResourceState
from homeostat.contracts.wire import Finish, Intent
from homeostat.resources.ocf import ActionOutcome

_DETAIL_MAX = 200


class StepReason(Enum):
    """Why a step was taken. The text of a report is `<name in lower case>: <sentence> (<detail>)`."""

    FIRST_START = "not running yet; starting it"
    ADOPTED = "already running; monitor OK"
    STARTED = "monitor OK"
    RESTARTED = "monitor OK after the restart"
    PROCESS_DIED = "its process died"
    NOT_RUNNING = "its monitor says that it does not run"
    MONITOR_FAILED = "its monitor reports an error"
    MONITOR_TIMED_OUT = "its monitor did not answer within its timeout"
    WENT_AWAY_UNWATCHED = "up when last seen, not running now; nothing watched it in between"
    RETRY = "still not up; next attempt"
    AGENT_REFUSES = "its agent reports a permanent error; the next attempt comes late"
    START_FAILED = "its start failed"
    START_TIMED_OUT = "its start timed out; the agent was killed"
    START_NOT_CONFIRMED = "its start reported success, but its monitor says that it is not running"
    STOP_FAILED = "its stop failed; it may still run, so it is not started"
    STOP_TIMED_OUT = "its stop timed out; it may still run, so it is not started"
    STOP_ASKED = "the node process stops and stops its resources"
    STOPPED = "its monitor says that it does not run any more"
    STOP_NOT_CONFIRMED = "its stop reported success, but its monitor says that it still runs"
    INTERRUPTED = "interrupted: the node process stops"
    SEEN_AFTERWARDS = "the runner ended during the act; its outcome is what the next monitor showed"

    def text(self, detail: str = "") -> str:
        """The reason as reports carry it."""
        said = f"{self.name.lower()}: {self.value}"
        return f"{said} ({detail[:_DETAIL_MAX]})" if detail else said


class Phase(Enum):
    """What the standing waits for: the end of an action, a time, or a report to be on disk before it."""

    PROBING = "a first look"
    CLEARING = "the stop of a restart"
    STARTING = "the start"
    CONFIRMING = "the look after a start"
    UP = "the next monitor operation, or the end of its process"
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
class SupervisionState:
    """Where one resource stands. `level` and `reported` are what was last reported."""

    phase: Phase = Phase.PROBING
    level: ResourceState | None = None
    reported: str = ""
    act: Intent | None = None
    act_began_ns: int | None = None
    attempts: int = 0
    up_since_ns: int | None = None
    due_ns: int = 0


@dataclass(frozen=True, slots=True)
class RunnerStarted:
    """The first event: what was last reported, and an act that nobody saw the end of."""

    level: ResourceState | None
    act: Intent | None


@dataclass(frozen=True, slots=True)
class ReportRecorded:
    """The last `SendReport` is recorded."""


@dataclass(frozen=True, slots=True)
class ActionEnded:
    """The action of the last `Run` ended."""

    answer: ActionOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProcessDied:
    """The process of a watched resource is gone."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """The time of the last `Wait` has come."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The node stops and on_stop says so. Whatever ran before is over or was killed."""


SupervisionEvent = RunnerStarted | ReportRecorded | ActionEnded | ProcessDied | WaitEnded | StopRequested


@dataclass(frozen=True, slots=True)
class RunAction:
    """Run one action of the agent. A probe is a monitor with interval 0; `watched` may end in `Died`."""

    verb: str
    timeout_s: float
    interval_s: float = 0.0
    watched: bool = False


@dataclass(frozen=True, slots=True)
class SendReport:
    """Report, and go on when that is on disk. `unwatched`: nobody saw when it became so."""

    state: ResourceState
    reason: str
    intended: Intent | None = None
    finished: Finish | None = None
    unwatched: bool = False


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Wait until `until_ns` on the monotonic clock; `watched` may end in `Died`."""

    until_ns: int
    watched: bool = False


@dataclass(frozen=True, slots=True)
class EndSupervision:
    """Nothing is left to do."""


SupervisionStep = RunAction | SendReport | WaitUntil | EndSupervision

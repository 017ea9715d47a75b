"""What supervision decides: tables of single decisions, and properties of whole histories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import ResourceState
from homeostat.contracts.wire import Intent, Outcome
from homeostat.resources.model import (
    ActionEnded,
    EndSupervision,
    Now,
    Phase,
    Policy,
    ProcessDied,
    ReportRecorded,
    RunAction,
    RunnerStarted,
    SendReport,
    StepReason,
    StopRequested,
    SupervisionEvent,
    SupervisionState,
    SupervisionStep,
    WaitEnded,
    WaitUntil,
)
from homeostat.resources.ocf import ActionOutcome
from homeostat.resources.supervision import decide, is_interruptible

S = 1_000_000_000
POLICY = Policy(start_s=20, stop_s=15, monitor_s=10, interval_s=5, stable_s=10, backoff_most_s=30)
UP, DOWN, FAILED = ResourceState.UP, ResourceState.DOWN, ResourceState.FAILED
STARTING, STOPPED = ResourceState.STARTING, ResourceState.STOPPED


class Story:
    """A history told event by event; `at_s` is the time of the next one."""

    def __init__(self, level: ResourceState | None = None, act: Intent | None = None) -> None:
        self.standing, self.at_s, self._acts = SupervisionState(), 1000.0, 0
        self.step: SupervisionStep = self.then(RunnerStarted(level, act))

    def then(self, *events: SupervisionEvent) -> SupervisionStep:
        for event in events:
            self._acts += 1
            now = Now(round(self.at_s * S), f"a{self._acts}")
            self.standing, self.step = decide(self.standing, event, now, POLICY)
        return self.step

    def answered(self, *answers: ActionOutcome) -> SupervisionStep:
        return self.then(*(ActionEnded(answer) for answer in answers))

    def told(self) -> SendReport:
        assert isinstance(self.step, SendReport), self.step
        return self.step

    def started(self) -> Story:
        """Through a first start until it waits for its next monitor."""
        self.answered(ActionOutcome.NOT_RUNNING)
        self.then(ReportRecorded())
        self.answered(ActionOutcome.OK, ActionOutcome.OK)
        self.then(ReportRecorded())
        return self


def test_the_first_start_is_starting_then_up_and_never_an_outage() -> None:
    story = Story()
    assert story.step == RunAction("monitor", 10)  # a probe: interval 0
    story.answered(ActionOutcome.NOT_RUNNING)
    starting = story.told()
    assert starting.state is STARTING and starting.reason.startswith("first_start: ")
    assert starting.intended is not None
    assert (starting.intended.verb, starting.intended.deadline_s) == ("start", 30)
    assert story.then(ReportRecorded()) == RunAction("start", 20)
    assert story.answered(ActionOutcome.OK) == RunAction("monitor", 10)
    story.at_s += 2
    story.answered(ActionOutcome.OK)
    up = story.told()
    assert up.state is UP and up.finished is not None
    assert (up.finished.action, up.finished.outcome, up.finished.took_ms) == (
        starting.intended.action,
        Outcome.OK,
        2000,
    )
    assert story.then(ReportRecorded()) == WaitUntil(1007 * S, watched=True)


@pytest.mark.parametrize(
    ("level", "answer", "state", "why", "verb"),
    [
        (None, ActionOutcome.NOT_RUNNING, STARTING, StepReason.FIRST_START, "start"),
        (None, ActionOutcome.SOFT, STARTING, StepReason.FIRST_START, "restart"),
        (None, ActionOutcome.TIMED_OUT, STARTING, StepReason.FIRST_START, "restart"),
        (None, ActionOutcome.OK, UP, StepReason.ADOPTED, None),
        (None, ActionOutcome.HARD, FAILED, StepReason.AGENT_REFUSES, None),
        (None, ActionOutcome.FATAL, FAILED, StepReason.AGENT_REFUSES, None),
        (STOPPED, ActionOutcome.NOT_RUNNING, STARTING, StepReason.FIRST_START, "start"),
        (STARTING, ActionOutcome.NOT_RUNNING, STARTING, StepReason.FIRST_START, "start"),
        (ResourceState.UNKNOWN, ActionOutcome.NOT_RUNNING, STARTING, StepReason.FIRST_START, "start"),
        (UP, ActionOutcome.NOT_RUNNING, DOWN, StepReason.WENT_AWAY_UNWATCHED, "restart"),
        (UP, ActionOutcome.SOFT, DOWN, StepReason.MONITOR_FAILED, "restart"),
        (UP, ActionOutcome.TIMED_OUT, DOWN, StepReason.MONITOR_TIMED_OUT, "restart"),
        (UP, ActionOutcome.HARD, FAILED, StepReason.AGENT_REFUSES, None),
        (DOWN, ActionOutcome.NOT_RUNNING, DOWN, StepReason.RETRY, "restart"),
        (DOWN, ActionOutcome.OK, UP, StepReason.ADOPTED, None),
        (FAILED, ActionOutcome.NOT_RUNNING, FAILED, StepReason.RETRY, "restart"),
        (FAILED, ActionOutcome.OK, UP, StepReason.ADOPTED, None),
    ],
)
def test_the_first_look_decides_by_what_was_remembered(
    level: ResourceState | None,
    answer: ActionOutcome,
    state: ResourceState,
    why: StepReason,
    verb: str | None,
) -> None:
    story = Story(level)
    story.answered(answer)
    told = story.told()
    assert told.state is state
    assert told.reason.startswith(f"{why.name.lower()}: ")
    assert (told.intended.verb if told.intended else None) == verb
    assert told.unwatched is (why is StepReason.WENT_AWAY_UNWATCHED)
    if verb is not None:
        assert story.then(ReportRecorded()) == (
            RunAction("start", 20) if verb == "start" else RunAction("stop", 15)
        )


def test_what_was_up_and_is_up_is_watched_without_a_word() -> None:
    assert Story(UP).answered(ActionOutcome.OK) == WaitUntil(1005 * S, watched=True)


@pytest.mark.parametrize(
    ("verb", "answer", "outcome"),
    [
        ("start", ActionOutcome.OK, Outcome.OK),
        ("start", ActionOutcome.NOT_RUNNING, Outcome.FAILED),
        ("start", ActionOutcome.SOFT, Outcome.UNKNOWN),
        ("restart", ActionOutcome.OK, Outcome.OK),
        ("restart", ActionOutcome.TIMED_OUT, Outcome.UNKNOWN),
        ("restart", ActionOutcome.HARD, Outcome.UNKNOWN),
        ("stop", ActionOutcome.NOT_RUNNING, Outcome.OK),
        ("stop", ActionOutcome.OK, Outcome.FAILED),
        ("stop", ActionOutcome.SOFT, Outcome.UNKNOWN),
    ],
)
def test_an_open_act_is_finished_by_the_first_look(
    verb: str, answer: ActionOutcome, outcome: Outcome
) -> None:
    story = Story(DOWN if verb != "stop" else UP, Intent("old", verb, 30, "why"))
    story.answered(answer)
    finished = story.told().finished
    assert finished is not None
    assert (finished.action, finished.outcome) == ("old", outcome)
    assert finished.reason.startswith("seen_afterwards: ")
    intended = story.told().intended
    assert intended is None or intended.action != "old"


def test_a_stop_that_was_cut_off_and_worked_is_no_outage() -> None:
    story = Story(UP, Intent("old", "stop", 30, "why"))
    story.answered(ActionOutcome.NOT_RUNNING)
    assert story.told().state is STARTING


def test_a_death_is_down_at_once_and_a_restart_stops_before_it_starts() -> None:
    story = Story().started()
    story.at_s += 100
    story.then(ProcessDied("pid 7"))
    down = story.told()
    assert down.state is DOWN and down.reason == "process_died: its process died (pid 7)"
    assert down.intended is not None
    assert (down.intended.verb, down.intended.deadline_s) == ("restart", 45)
    assert story.then(ReportRecorded()) == RunAction("stop", 15)
    assert story.answered(ActionOutcome.OK) == RunAction("start", 20)
    assert story.answered(ActionOutcome.OK) == RunAction("monitor", 10)
    story.answered(ActionOutcome.OK)
    assert story.told().state is UP and story.told().reason.startswith("restarted: ")
    finished = story.told().finished
    assert finished is not None and finished.action == down.intended.action


@pytest.mark.parametrize(
    ("answer", "state", "why"),
    [
        (ActionOutcome.NOT_RUNNING, DOWN, StepReason.NOT_RUNNING),
        (ActionOutcome.SOFT, DOWN, StepReason.MONITOR_FAILED),
        (ActionOutcome.TIMED_OUT, DOWN, StepReason.MONITOR_TIMED_OUT),
        (ActionOutcome.HARD, FAILED, StepReason.AGENT_REFUSES),
        (ActionOutcome.FATAL, FAILED, StepReason.AGENT_REFUSES),
    ],
)
def test_a_monitor_that_complains(answer: ActionOutcome, state: ResourceState, why: StepReason) -> None:
    story = Story().started()
    assert story.then(WaitEnded()) == RunAction("monitor", 10, 5, watched=True)
    story.answered(answer)
    assert story.told().state is state
    assert story.told().reason.startswith(f"{why.name.lower()}: ")
    assert (story.told().intended is not None) == (state is DOWN)


def test_attempts_back_off_and_each_has_its_own_act() -> None:
    story = Story(UP)
    story.answered(ActionOutcome.OK)
    story.then(ProcessDied())
    acts, pauses = [], []
    for _ in range(8):
        intended = story.told().intended
        assert intended is not None
        acts.append(intended.action)
        story.then(ReportRecorded())
        story.answered(ActionOutcome.OK, ActionOutcome.SOFT)
        told = story.told()
        assert told.state is DOWN and told.intended is None
        assert told.finished is not None and told.finished.outcome is Outcome.FAILED
        step = story.then(ReportRecorded())
        assert isinstance(step, WaitUntil) and not step.watched
        pauses.append(step.until_ns / S - story.at_s)
        story.at_s = step.until_ns / S
        assert story.then(WaitEnded()) == RunAction("monitor", 10)
        story.answered(ActionOutcome.NOT_RUNNING)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(set(acts)) == 8


def test_what_came_back_by_itself_is_not_restarted() -> None:
    story = Story(DOWN)
    story.answered(ActionOutcome.OK)
    assert story.told().state is UP and story.told().intended is None


@pytest.mark.parametrize(("lived_s", "pause_s"), [(9, 1), (10, 0)])
def test_a_second_death_is_the_first_again_only_after_a_stable_time(lived_s: float, pause_s: float) -> None:
    story = Story(UP)
    story.answered(ActionOutcome.OK)
    story.then(ProcessDied(), ReportRecorded())
    story.answered(ActionOutcome.OK, ActionOutcome.OK, ActionOutcome.OK)
    story.then(ReportRecorded())
    story.at_s += lived_s
    story.then(ProcessDied())
    assert story.told().state is DOWN
    assert (story.told().intended is None) == (pause_s > 0)
    if pause_s:
        assert story.then(ReportRecorded()) == WaitUntil(round((story.at_s + pause_s) * S))


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ((ActionOutcome.SOFT,), StepReason.STOP_FAILED),
        ((ActionOutcome.TIMED_OUT,), StepReason.STOP_TIMED_OUT),
        ((ActionOutcome.OK, ActionOutcome.SOFT), StepReason.START_FAILED),
        ((ActionOutcome.OK, ActionOutcome.TIMED_OUT), StepReason.START_TIMED_OUT),
        ((ActionOutcome.OK, ActionOutcome.OK, ActionOutcome.NOT_RUNNING), StepReason.START_NOT_CONFIRMED),
    ],
)
def test_a_failed_attempt_says_where_it_failed(answers: tuple[ActionOutcome, ...], why: StepReason) -> None:
    story = Story(UP)
    story.answered(ActionOutcome.NOT_RUNNING)
    story.then(ReportRecorded())
    story.answered(*answers)
    finished = story.told().finished
    assert finished is not None and finished.outcome is Outcome.FAILED
    assert finished.reason.startswith(f"{why.name.lower()}: ")


@pytest.mark.parametrize("answer", [ActionOutcome.HARD, ActionOutcome.FATAL])
def test_an_error_that_a_repeat_does_not_cure_waits_long(answer: ActionOutcome) -> None:
    story = Story()
    story.answered(ActionOutcome.NOT_RUNNING)
    story.then(ReportRecorded())
    story.answered(answer)
    assert story.told().state is FAILED
    assert story.then(ReportRecorded()) == WaitUntil((1000 + 30) * S)


def test_the_same_refusal_is_told_once() -> None:
    story = Story()
    story.answered(ActionOutcome.HARD)
    story.then(ReportRecorded())
    story.at_s += 30
    story.then(WaitEnded())
    assert story.answered(ActionOutcome.HARD) == WaitUntil(1060 * S)


def test_the_node_stops_it() -> None:
    story = Story().started()
    story.then(StopRequested())
    asked = story.told()
    assert asked.state is UP and asked.intended is not None and asked.intended.verb == "stop"
    assert story.then(ReportRecorded()) == RunAction("stop", 15)
    assert not is_interruptible(story.standing)
    story.at_s += 3
    assert story.answered(ActionOutcome.OK) == RunAction("monitor", 10)
    story.answered(ActionOutcome.NOT_RUNNING)
    told = story.told()
    assert told.state is STOPPED and told.finished is not None
    assert (told.finished.outcome, told.finished.took_ms) == (Outcome.OK, 3000)
    assert story.then(ReportRecorded()) == EndSupervision()


@pytest.mark.parametrize(
    ("answers", "state", "outcome"),
    [
        ((ActionOutcome.SOFT,), FAILED, Outcome.FAILED),
        ((ActionOutcome.TIMED_OUT,), FAILED, Outcome.FAILED),
        ((ActionOutcome.OK, ActionOutcome.OK), FAILED, Outcome.FAILED),
        ((ActionOutcome.OK, ActionOutcome.SOFT), ResourceState.UNKNOWN, Outcome.UNKNOWN),
    ],
)
@pytest.mark.seed("004 B2: success of a stop only if it is really stopped")
def test_a_stop_that_lies_or_fails_is_not_stopped(
    answers: tuple[ActionOutcome, ...], state: ResourceState, outcome: Outcome
) -> None:
    story = Story().started()
    story.then(StopRequested(), ReportRecorded())
    story.answered(*answers)
    assert story.told().state is state
    assert story.told().finished is not None and story.told().finished.outcome is outcome  # type: ignore[union-attr]


def test_a_start_cut_short_by_the_stop_is_finished_as_unknown() -> None:
    story = Story()
    story.answered(ActionOutcome.NOT_RUNNING)
    begun = story.told().intended
    story.then(ReportRecorded(), StopRequested())
    told = story.told()
    assert begun is not None and told.finished is not None and told.intended is not None
    assert (told.finished.action, told.finished.outcome) == (begun.action, Outcome.UNKNOWN)


class World:
    """Follows every step and complains when an invariant breaks."""

    def __init__(self, remembered: RunnerStarted) -> None:
        self.open = remembered.act.action if remembered.act else None
        self.on_disk = False
        self.level = remembered.level
        self.seen: set[str] = set()

    def check(self, event: SupervisionEvent, step: SupervisionStep) -> None:
        match step:
            case SendReport():
                if step.finished is not None:
                    assert step.finished.action == self.open
                    assert step.finished.took_ms >= 0
                    self.open = None
                if step.intended is not None:
                    assert self.open is None, "an act begins while another is open"
                    assert step.intended.action not in self.seen
                    self.seen.add(step.intended.action)
                    self.open = step.intended.action
                if isinstance(event, ProcessDied):
                    assert self.level is UP and step.state is DOWN
                if self.level in (DOWN, FAILED):
                    assert step.state is not STARTING, "an outage was made to look like a first start"
                self.level, self.on_disk = step.state, False
            case RunAction(verb=("start" | "stop")):
                assert self.open is not None and self.on_disk, "an act without a recorded intent"
            case RunAction() | WaitUntil():
                assert not step.watched or (self.level is UP and self.open is None)
            case EndSupervision():
                assert self.open is None
        assert not (isinstance(event, ProcessDied) and not isinstance(step, SendReport)), (
            "a death was not reported"
        )


@st.composite
def histories(draw: st.DrawFn) -> tuple[RunnerStarted, list[tuple[int, int, int]]]:
    level = draw(st.none() | st.sampled_from(ResourceState))
    verb = draw(st.none() | st.sampled_from(["start", "stop", "restart"]))
    act = Intent("before", verb, 30, "why") if verb else None
    choices = st.tuples(st.integers(0, 99), st.integers(0, 5), st.integers(0, 90))
    return RunnerStarted(level, act), draw(st.lists(choices, max_size=60))


def _event_after(
    standing: SupervisionState, step: SupervisionStep, choice: int, answer: int
) -> SupervisionEvent:
    """One of the events that this step can end in."""
    may_stop = is_interruptible(standing) and choice >= 95
    match step:
        case SendReport():
            return ReportRecorded()
        case RunAction():
            if step.watched and choice < 20:
                return ProcessDied()
            return StopRequested() if may_stop else ActionEnded(list(ActionOutcome)[answer])
        case WaitUntil():
            if step.watched and choice < 40:
                return ProcessDied()
            return StopRequested() if may_stop else WaitEnded()
        case EndSupervision():
            raise AssertionError("over")


@given(histories())
def test_every_act_is_recorded_first_and_finished_once(
    history: tuple[RunnerStarted, list[tuple[int, int, int]]],
) -> None:
    remembered, choices = history
    world, at_ns = World(remembered), 0
    standing, step = decide(SupervisionState(), remembered, Now(at_ns, "x0"), POLICY)
    for number, (choice, answer, later_s) in enumerate(choices, 1):
        if isinstance(step, EndSupervision):
            break
        event = _event_after(standing, step, choice, answer)
        at_ns += later_s * S
        world.on_disk = world.on_disk or isinstance(event, ReportRecorded)
        standing, step = decide(standing, event, Now(at_ns, f"x{number}"), POLICY)
        world.check(event, step)
    # From anywhere, an agent that obeys leads to a steady state with nothing open.
    for number in range(12):
        if isinstance(step, EndSupervision) or (isinstance(step, WaitUntil) and standing.phase is Phase.UP):
            break
        good = (
            ActionOutcome.NOT_RUNNING
            if standing.phase in (Phase.PROBING, Phase.LAST_LOOK)
            else ActionOutcome.OK
        )
        event = _event_after(standing, step, 50, list(ActionOutcome).index(good))
        at_ns += 1 * S
        world.on_disk = world.on_disk or isinstance(event, ReportRecorded)
        standing, step = decide(standing, event, Now(at_ns, f"y{number}"), POLICY)
        world.check(event, step)
    else:
        raise AssertionError(f"no steady state: {standing}")
    assert world.open is None


@given(st.integers(0, 10_000))
def test_the_pause_never_shrinks_and_never_exceeds_the_longest(attempts: int) -> None:
    pause_s = POLICY.backoff_s(attempts)
    assert pause_s <= POLICY.backoff_s(attempts + 1) <= 30
    assert replace(POLICY, backoff_most_s=3).backoff_s(attempts) <= 3

"""What supervision decides: tables of single decisions, and properties of whole histories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import ResourceState
from homeostat.contracts.wire import Intent, Outcome
from homeostat.resources.model import (
    Answered,
    Died,
    Due,
    Event,
    Leave,
    Now,
    OnDisk,
    Phase,
    Policy,
    Reason,
    Remembered,
    Run,
    Standing,
    Step,
    StopAsked,
    Tell,
    Wait,
)
from homeostat.resources.ocf import Answer
from homeostat.resources.supervision import decide, is_interruptible

S = 1_000_000_000
POLICY = Policy(start_s=20, stop_s=15, monitor_s=10, interval_s=5, stable_s=10, backoff_most_s=30)
UP, DOWN, FAILED = ResourceState.UP, ResourceState.DOWN, ResourceState.FAILED
STARTING, STOPPED = ResourceState.STARTING, ResourceState.STOPPED


class Story:
    """A history told event by event; `at_s` is the time of the next one."""

    def __init__(self, level: ResourceState | None = None, act: Intent | None = None) -> None:
        self.standing, self.at_s, self._acts = Standing(), 1000.0, 0
        self.step: Step = self.then(Remembered(level, act))

    def then(self, *events: Event) -> Step:
        for event in events:
            self._acts += 1
            now = Now(round(self.at_s * S), f"a{self._acts}")
            self.standing, self.step = decide(self.standing, event, now, POLICY)
        return self.step

    def answered(self, *answers: Answer) -> Step:
        return self.then(*(Answered(answer) for answer in answers))

    def told(self) -> Tell:
        assert isinstance(self.step, Tell), self.step
        return self.step

    def started(self) -> Story:
        """Through a first start until it waits for its next monitor."""
        self.answered(Answer.NOT_RUNNING)
        self.then(OnDisk())
        self.answered(Answer.OK, Answer.OK)
        self.then(OnDisk())
        return self


def test_the_first_start_is_starting_then_up_and_never_an_outage() -> None:
    story = Story()
    assert story.step == Run("monitor", 10)  # a probe: interval 0
    story.answered(Answer.NOT_RUNNING)
    starting = story.told()
    assert starting.state is STARTING and starting.reason.startswith("first_start: ")
    assert starting.intended is not None
    assert (starting.intended.verb, starting.intended.deadline_s) == ("start", 30)
    assert story.then(OnDisk()) == Run("start", 20)
    assert story.answered(Answer.OK) == Run("monitor", 10)
    story.at_s += 2
    story.answered(Answer.OK)
    up = story.told()
    assert up.state is UP and up.finished is not None
    assert (up.finished.action, up.finished.outcome, up.finished.took_ms) == (
        starting.intended.action,
        Outcome.OK,
        2000,
    )
    assert story.then(OnDisk()) == Wait(1007 * S, watched=True)


@pytest.mark.parametrize(
    ("level", "answer", "state", "why", "verb"),
    [
        (None, Answer.NOT_RUNNING, STARTING, Reason.FIRST_START, "start"),
        (None, Answer.SOFT, STARTING, Reason.FIRST_START, "restart"),
        (None, Answer.TIMED_OUT, STARTING, Reason.FIRST_START, "restart"),
        (None, Answer.OK, UP, Reason.ADOPTED, None),
        (None, Answer.HARD, FAILED, Reason.AGENT_REFUSES, None),
        (None, Answer.FATAL, FAILED, Reason.AGENT_REFUSES, None),
        (STOPPED, Answer.NOT_RUNNING, STARTING, Reason.FIRST_START, "start"),
        (STARTING, Answer.NOT_RUNNING, STARTING, Reason.FIRST_START, "start"),
        (ResourceState.UNKNOWN, Answer.NOT_RUNNING, STARTING, Reason.FIRST_START, "start"),
        (UP, Answer.NOT_RUNNING, DOWN, Reason.WENT_AWAY_UNWATCHED, "restart"),
        (UP, Answer.SOFT, DOWN, Reason.MONITOR_FAILED, "restart"),
        (UP, Answer.TIMED_OUT, DOWN, Reason.MONITOR_TIMED_OUT, "restart"),
        (UP, Answer.HARD, FAILED, Reason.AGENT_REFUSES, None),
        (DOWN, Answer.NOT_RUNNING, DOWN, Reason.RETRY, "restart"),
        (DOWN, Answer.OK, UP, Reason.ADOPTED, None),
        (FAILED, Answer.NOT_RUNNING, FAILED, Reason.RETRY, "restart"),
        (FAILED, Answer.OK, UP, Reason.ADOPTED, None),
    ],
)
def test_the_first_look_decides_by_what_was_remembered(
    level: ResourceState | None, answer: Answer, state: ResourceState, why: Reason, verb: str | None
) -> None:
    story = Story(level)
    story.answered(answer)
    told = story.told()
    assert told.state is state
    assert told.reason.startswith(f"{why.name.lower()}: ")
    assert (told.intended.verb if told.intended else None) == verb
    assert told.unwatched is (why is Reason.WENT_AWAY_UNWATCHED)
    if verb is not None:
        assert story.then(OnDisk()) == (Run("start", 20) if verb == "start" else Run("stop", 15))


def test_what_was_up_and_is_up_is_watched_without_a_word() -> None:
    assert Story(UP).answered(Answer.OK) == Wait(1005 * S, watched=True)


@pytest.mark.parametrize(
    ("verb", "answer", "outcome"),
    [
        ("start", Answer.OK, Outcome.OK),
        ("start", Answer.NOT_RUNNING, Outcome.FAILED),
        ("start", Answer.SOFT, Outcome.UNKNOWN),
        ("restart", Answer.OK, Outcome.OK),
        ("restart", Answer.TIMED_OUT, Outcome.UNKNOWN),
        ("restart", Answer.HARD, Outcome.UNKNOWN),
        ("stop", Answer.NOT_RUNNING, Outcome.OK),
        ("stop", Answer.OK, Outcome.FAILED),
        ("stop", Answer.SOFT, Outcome.UNKNOWN),
    ],
)
def test_an_open_act_is_finished_by_the_first_look(verb: str, answer: Answer, outcome: Outcome) -> None:
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
    story.answered(Answer.NOT_RUNNING)
    assert story.told().state is STARTING


def test_a_death_is_down_at_once_and_a_restart_stops_before_it_starts() -> None:
    story = Story().started()
    story.at_s += 100
    story.then(Died("pid 7"))
    down = story.told()
    assert down.state is DOWN and down.reason == "process_died: its process ended (pid 7)"
    assert down.intended is not None
    assert (down.intended.verb, down.intended.deadline_s) == ("restart", 45)
    assert story.then(OnDisk()) == Run("stop", 15)
    assert story.answered(Answer.OK) == Run("start", 20)
    assert story.answered(Answer.OK) == Run("monitor", 10)
    story.answered(Answer.OK)
    assert story.told().state is UP and story.told().reason.startswith("restarted: ")
    finished = story.told().finished
    assert finished is not None and finished.action == down.intended.action


@pytest.mark.parametrize(
    ("answer", "state", "why"),
    [
        (Answer.NOT_RUNNING, DOWN, Reason.NOT_RUNNING),
        (Answer.SOFT, DOWN, Reason.MONITOR_FAILED),
        (Answer.TIMED_OUT, DOWN, Reason.MONITOR_TIMED_OUT),
        (Answer.HARD, FAILED, Reason.AGENT_REFUSES),
        (Answer.FATAL, FAILED, Reason.AGENT_REFUSES),
    ],
)
def test_a_monitor_that_complains(answer: Answer, state: ResourceState, why: Reason) -> None:
    story = Story().started()
    assert story.then(Due()) == Run("monitor", 10, 5, watched=True)
    story.answered(answer)
    assert story.told().state is state
    assert story.told().reason.startswith(f"{why.name.lower()}: ")
    assert (story.told().intended is not None) == (state is DOWN)


def test_attempts_back_off_and_each_has_its_own_act() -> None:
    story = Story(UP)
    story.answered(Answer.OK)
    story.then(Died())
    acts, pauses = [], []
    for _ in range(8):
        intended = story.told().intended
        assert intended is not None
        acts.append(intended.action)
        story.then(OnDisk())
        story.answered(Answer.OK, Answer.SOFT)
        told = story.told()
        assert told.state is DOWN and told.intended is None
        assert told.finished is not None and told.finished.outcome is Outcome.FAILED
        step = story.then(OnDisk())
        assert isinstance(step, Wait) and not step.watched
        pauses.append(step.until_ns / S - story.at_s)
        story.at_s = step.until_ns / S
        assert story.then(Due()) == Run("monitor", 10)
        story.answered(Answer.NOT_RUNNING)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert len(set(acts)) == 8


def test_what_came_back_by_itself_is_not_restarted() -> None:
    story = Story(DOWN)
    story.answered(Answer.OK)
    assert story.told().state is UP and story.told().intended is None


@pytest.mark.parametrize(("lived_s", "pause_s"), [(9, 1), (10, 0)])
def test_a_second_death_is_the_first_again_only_after_a_stable_time(lived_s: float, pause_s: float) -> None:
    story = Story(UP)
    story.answered(Answer.OK)
    story.then(Died(), OnDisk())
    story.answered(Answer.OK, Answer.OK, Answer.OK)
    story.then(OnDisk())
    story.at_s += lived_s
    story.then(Died())
    assert story.told().state is DOWN
    assert (story.told().intended is None) == (pause_s > 0)
    if pause_s:
        assert story.then(OnDisk()) == Wait(round((story.at_s + pause_s) * S))


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ((Answer.SOFT,), Reason.STOP_FAILED),
        ((Answer.TIMED_OUT,), Reason.STOP_TIMED_OUT),
        ((Answer.OK, Answer.SOFT), Reason.START_FAILED),
        ((Answer.OK, Answer.TIMED_OUT), Reason.START_TIMED_OUT),
        ((Answer.OK, Answer.OK, Answer.NOT_RUNNING), Reason.START_NOT_CONFIRMED),
    ],
)
def test_a_failed_attempt_says_where_it_failed(answers: tuple[Answer, ...], why: Reason) -> None:
    story = Story(UP)
    story.answered(Answer.NOT_RUNNING)
    story.then(OnDisk())
    story.answered(*answers)
    finished = story.told().finished
    assert finished is not None and finished.outcome is Outcome.FAILED
    assert finished.reason.startswith(f"{why.name.lower()}: ")


@pytest.mark.parametrize("answer", [Answer.HARD, Answer.FATAL])
def test_an_error_that_a_repeat_does_not_cure_waits_long(answer: Answer) -> None:
    story = Story()
    story.answered(Answer.NOT_RUNNING)
    story.then(OnDisk())
    story.answered(answer)
    assert story.told().state is FAILED
    assert story.then(OnDisk()) == Wait((1000 + 30) * S)


def test_the_same_refusal_is_told_once() -> None:
    story = Story()
    story.answered(Answer.HARD)
    story.then(OnDisk())
    story.at_s += 30
    story.then(Due())
    assert story.answered(Answer.HARD) == Wait(1060 * S)


def test_the_node_stops_it() -> None:
    story = Story().started()
    story.then(StopAsked())
    asked = story.told()
    assert asked.state is UP and asked.intended is not None and asked.intended.verb == "stop"
    assert story.then(OnDisk()) == Run("stop", 15)
    assert not is_interruptible(story.standing)
    story.at_s += 3
    assert story.answered(Answer.OK) == Run("monitor", 10)
    story.answered(Answer.NOT_RUNNING)
    told = story.told()
    assert told.state is STOPPED and told.finished is not None
    assert (told.finished.outcome, told.finished.took_ms) == (Outcome.OK, 3000)
    assert story.then(OnDisk()) == Leave()


@pytest.mark.parametrize(
    ("answers", "state", "outcome"),
    [
        ((Answer.SOFT,), FAILED, Outcome.FAILED),
        ((Answer.TIMED_OUT,), FAILED, Outcome.FAILED),
        ((Answer.OK, Answer.OK), FAILED, Outcome.FAILED),
        ((Answer.OK, Answer.SOFT), ResourceState.UNKNOWN, Outcome.UNKNOWN),
    ],
)
@pytest.mark.seed("004 B2: success of a stop only if it is really stopped")
def test_a_stop_that_lies_or_fails_is_not_stopped(
    answers: tuple[Answer, ...], state: ResourceState, outcome: Outcome
) -> None:
    story = Story().started()
    story.then(StopAsked(), OnDisk())
    story.answered(*answers)
    assert story.told().state is state
    assert story.told().finished is not None and story.told().finished.outcome is outcome  # type: ignore[union-attr]


def test_a_start_cut_short_by_the_stop_is_finished_as_unknown() -> None:
    story = Story()
    story.answered(Answer.NOT_RUNNING)
    begun = story.told().intended
    story.then(OnDisk(), StopAsked())
    told = story.told()
    assert begun is not None and told.finished is not None and told.intended is not None
    assert (told.finished.action, told.finished.outcome) == (begun.action, Outcome.UNKNOWN)


class World:
    """Follows every step and complains when an invariant breaks."""

    def __init__(self, remembered: Remembered) -> None:
        self.open = remembered.act.action if remembered.act else None
        self.on_disk = False
        self.level = remembered.level
        self.seen: set[str] = set()

    def check(self, event: Event, step: Step) -> None:
        match step:
            case Tell():
                if step.finished is not None:
                    assert step.finished.action == self.open
                    assert step.finished.took_ms >= 0
                    self.open = None
                if step.intended is not None:
                    assert self.open is None, "an act begins while another is open"
                    assert step.intended.action not in self.seen
                    self.seen.add(step.intended.action)
                    self.open = step.intended.action
                if isinstance(event, Died):
                    assert self.level is UP and step.state is DOWN
                if self.level in (DOWN, FAILED):
                    assert step.state is not STARTING, "an outage was made to look like a first start"
                self.level, self.on_disk = step.state, False
            case Run(verb=("start" | "stop")):
                assert self.open is not None and self.on_disk, "an act without a recorded intent"
            case Run() | Wait():
                assert not step.watched or (self.level is UP and self.open is None)
            case Leave():
                assert self.open is None
        assert not (isinstance(event, Died) and not isinstance(step, Tell)), "a death was not reported"


@st.composite
def histories(draw: st.DrawFn) -> tuple[Remembered, list[tuple[int, int, int]]]:
    level = draw(st.none() | st.sampled_from(ResourceState))
    verb = draw(st.none() | st.sampled_from(["start", "stop", "restart"]))
    act = Intent("before", verb, 30, "why") if verb else None
    choices = st.tuples(st.integers(0, 99), st.integers(0, 5), st.integers(0, 90))
    return Remembered(level, act), draw(st.lists(choices, max_size=60))


def _event_after(standing: Standing, step: Step, choice: int, answer: int) -> Event:
    """One of the events that this step can end in."""
    may_stop = is_interruptible(standing) and choice >= 95
    match step:
        case Tell():
            return OnDisk()
        case Run():
            if step.watched and choice < 20:
                return Died()
            return StopAsked() if may_stop else Answered(list(Answer)[answer])
        case Wait():
            if step.watched and choice < 40:
                return Died()
            return StopAsked() if may_stop else Due()
        case Leave():
            raise AssertionError("over")


@given(histories())
def test_every_act_is_recorded_first_and_finished_once(
    history: tuple[Remembered, list[tuple[int, int, int]]],
) -> None:
    remembered, choices = history
    world, at_ns = World(remembered), 0
    standing, step = decide(Standing(), remembered, Now(at_ns, "x0"), POLICY)
    for number, (choice, answer, later_s) in enumerate(choices, 1):
        if isinstance(step, Leave):
            break
        event = _event_after(standing, step, choice, answer)
        at_ns += later_s * S
        world.on_disk = world.on_disk or isinstance(event, OnDisk)
        standing, step = decide(standing, event, Now(at_ns, f"x{number}"), POLICY)
        world.check(event, step)
    # From anywhere, an agent that obeys leads to a steady state with nothing open.
    for number in range(12):
        if isinstance(step, Leave) or (isinstance(step, Wait) and standing.phase is Phase.UP):
            break
        good = Answer.NOT_RUNNING if standing.phase in (Phase.PROBING, Phase.LAST_LOOK) else Answer.OK
        event = _event_after(standing, step, 50, list(Answer).index(good))
        at_ns += 1 * S
        world.on_disk = world.on_disk or isinstance(event, OnDisk)
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

"""What to do next about one resource that should run. Pure: no clock, no randomness, no I/O.

`decide` takes where a resource stands and one event, and gives the new standing and exactly one step. The
driver performs the step and comes back with the event it ended in, so two actions of one resource are never
in flight. Invariants: an act (start, stop, restart) begins only after the `Tell` that intends it is on disk;
every intended act is finished by exactly one later `Tell`; a death while the resource is up leads to exactly
one `Tell` of down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from homeostat.contracts.nouns import ResourceState
from homeostat.contracts.wire import Finish, Intent, Outcome
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

_S = 1_000_000_000

Decision = tuple[Standing, Step]


def decide(standing: Standing, event: Event, now: Now, policy: Policy) -> Decision:
    """The step that follows `event`."""
    match event:
        case Remembered(level, act):
            return replace(standing, level=level, act=act), _probe(policy)
        case OnDisk():
            return _go_on(standing, now, policy)
        case Answered():
            return _answered(standing, event, now, policy)
        case Died(detail):
            return _fell(standing, Reason.PROCESS_DIED.told(detail), now, policy)
        case Due():
            if standing.phase is Phase.UP:
                return standing, Run("monitor", policy.monitor_s, policy.interval_s, watched=True)
            return replace(standing, phase=Phase.PROBING), _probe(policy)
        case StopAsked():
            return _stop(standing, now, policy)
        case _:
            assert_never(event)


def is_interruptible(standing: Standing) -> bool:
    """Whether a wish to stop may cut the present step short: not a stop, which must not be cut short."""
    return standing.phase not in (Phase.CLEARING, Phase.LAST_STOP, Phase.LAST_LOOK, Phase.ENDED)


def _probe(policy: Policy) -> Run:
    return Run("monitor", policy.monitor_s)


def _go_on(standing: Standing, now: Now, policy: Policy) -> Decision:
    """What a recorded report allows."""
    began = replace(standing, act_began_ns=now.mono_ns)
    match standing.phase:
        case Phase.CLEARING | Phase.LAST_STOP:
            return began, Run("stop", policy.stop_s)
        case Phase.STARTING:
            return began, Run("start", policy.start_s)
        case Phase.UP:
            return standing, Wait(now.mono_ns + round(policy.interval_s * _S), watched=True)
        case Phase.BACKING_OFF:
            return standing, Wait(standing.due_ns)
        case _:
            return standing, Leave()


def _answered(standing: Standing, event: Answered, now: Now, policy: Policy) -> Decision:
    ok = event.answer is Answer.OK
    match standing.phase:
        case Phase.PROBING:
            return _looked(standing, event, now, policy)
        case Phase.CLEARING if ok:
            return replace(standing, phase=Phase.STARTING), Run("start", policy.start_s)
        case Phase.STARTING if ok:
            return replace(standing, phase=Phase.CONFIRMING), _probe(policy)
        case Phase.CONFIRMING if ok:
            return _rose(standing, event, now)
        case Phase.UP if ok:
            return standing, Wait(now.mono_ns + round(policy.interval_s * _S), watched=True)
        case Phase.UP:
            return _monitor_complains(standing, event, now, policy)
        case Phase.CLEARING | Phase.STARTING | Phase.CONFIRMING:
            return _attempt_failed(standing, event, now, policy)
        case Phase.LAST_STOP if ok:
            return replace(standing, phase=Phase.LAST_LOOK), _probe(policy)
        case _:
            return _stopped(standing, event, now)


def _looked(standing: Standing, event: Answered, now: Now, policy: Policy) -> Decision:
    """The first look, at the start of day and before every later attempt."""
    act, level = standing.act, standing.level
    finished = _judged(act, event.answer) if act is not None else None
    stopped = act is not None and act.verb == "stop" and event.answer is Answer.NOT_RUNNING
    if stopped and level is ResourceState.UP:
        level = ResourceState.STOPPED  # it went away because it was told to; an outage before that stays one
    standing = replace(standing, act=None, act_began_ns=None, level=level)
    match event.answer:
        case Answer.OK:
            standing = replace(standing, phase=Phase.UP, up_since_ns=now.mono_ns)
            if level is ResourceState.UP and finished is None:
                return standing, Wait(now.mono_ns + round(policy.interval_s * _S), watched=True)
            return _tell(standing, ResourceState.UP, Reason.ADOPTED.told(event.detail), None, finished)
        case Answer.HARD | Answer.FATAL:
            text = Reason.AGENT_REFUSES.told(event.detail)
            standing = _later(standing, now, policy.backoff_most_s)
            if level is ResourceState.FAILED and standing.told == text and finished is None:
                return standing, Wait(standing.due_ns)
            return _tell(standing, ResourceState.FAILED, text, None, finished)
        case Answer.NOT_RUNNING | Answer.SOFT | Answer.TIMED_OUT:
            state, text = _found_down(level, event)
            first = state is ResourceState.STARTING and event.answer is Answer.NOT_RUNNING
            intended = _intend(now, policy, "start" if first else "restart", text)
            unwatched = level is ResourceState.UP and event.answer is Answer.NOT_RUNNING
            standing = replace(_acting(standing, intended), level=state, told=text, act=intended)
            return standing, Tell(state, text, intended, finished, unwatched)
        case _:
            assert_never(event.answer)


def _found_down(level: ResourceState | None, event: Answered) -> tuple[ResourceState, str]:
    """The state and the reason when a look shows that it does not run as it should."""
    match level:
        case ResourceState.UP if event.answer is Answer.NOT_RUNNING:
            return ResourceState.DOWN, Reason.WENT_AWAY_UNWATCHED.told(event.detail)
        case ResourceState.UP:
            return ResourceState.DOWN, _complaint(event)
        case ResourceState.DOWN | ResourceState.FAILED:
            return level, Reason.RETRY.told(event.detail)
        case _:
            return ResourceState.STARTING, Reason.FIRST_START.told(event.detail)


def _complaint(event: Answered) -> str:
    """Why a monitor's answer means down."""
    match event.answer:
        case Answer.NOT_RUNNING:
            return Reason.NOT_RUNNING.told(event.detail)
        case Answer.TIMED_OUT:
            return Reason.MONITOR_TIMED_OUT.told(event.detail)
        case _:
            return Reason.MONITOR_FAILED.told(event.detail)


def _monitor_complains(standing: Standing, event: Answered, now: Now, policy: Policy) -> Decision:
    if event.answer in (Answer.HARD, Answer.FATAL):
        standing = _later(standing, now, policy.backoff_most_s)
        return _tell(standing, ResourceState.FAILED, Reason.AGENT_REFUSES.told(event.detail))
    return _fell(standing, _complaint(event), now, policy)


def _fell(standing: Standing, text: str, now: Now, policy: Policy) -> Decision:
    """It was up and is down: say so at once, and restart it now or after the back-off."""
    stable = standing.up_since_ns is not None and now.mono_ns - standing.up_since_ns >= policy.stable_s * _S
    standing = replace(standing, attempts=0 if stable else standing.attempts, up_since_ns=None)
    pause_s = policy.backoff_s(standing.attempts)
    if pause_s > 0:
        return _tell(_later(standing, now, pause_s), ResourceState.DOWN, text)
    intended = _intend(now, policy, "restart", text)
    return _tell(_acting(standing, intended), ResourceState.DOWN, text, intended)


def _attempt_failed(standing: Standing, event: Answered, now: Now, policy: Policy) -> Decision:
    late = event.answer is Answer.TIMED_OUT
    match standing.phase:
        case Phase.CLEARING:
            reason = Reason.STOP_TIMED_OUT if late else Reason.STOP_FAILED
        case Phase.STARTING:
            reason = Reason.START_TIMED_OUT if late else Reason.START_FAILED
        case _:
            reason = Reason.START_NOT_CONFIRMED
    hopeless = event.answer in (Answer.HARD, Answer.FATAL)
    state = ResourceState.FAILED if hopeless else ResourceState.DOWN
    pause_s = policy.backoff_most_s if hopeless else policy.backoff_s(standing.attempts)
    text = reason.told(event.detail)
    finished = _finish(standing, Outcome.FAILED, text, now)
    return _tell(_later(standing, now, pause_s), state, text, None, finished)


def _rose(standing: Standing, event: Answered, now: Now) -> Decision:
    first = standing.act is not None and standing.act.verb == "start"
    text = (Reason.STARTED if first else Reason.RESTARTED).told(event.detail)
    finished = _finish(standing, Outcome.OK, text, now)
    attempts = 0 if first else standing.attempts
    standing = replace(standing, phase=Phase.UP, attempts=attempts, up_since_ns=now.mono_ns)
    return _tell(standing, ResourceState.UP, text, None, finished)


def _stop(standing: Standing, now: Now, policy: Policy) -> Decision:
    """The node stops: end what is open, then stop the resource."""
    interrupted = Reason.INTERRUPTED.told()
    finished = _finish(standing, Outcome.UNKNOWN, interrupted, now) if standing.act is not None else None
    text = Reason.STOP_ASKED.told()
    intended = _intend(now, policy, "stop", text)
    standing = replace(standing, phase=Phase.LAST_STOP, act=intended, act_began_ns=None)
    return _tell(standing, standing.level or ResourceState.UNKNOWN, text, intended, finished)


def _stopped(standing: Standing, event: Answered, now: Now) -> Decision:
    """The end of the last stop, or of the look after it."""
    state, outcome = ResourceState.FAILED, Outcome.FAILED
    if standing.phase is Phase.LAST_STOP:
        reason = Reason.STOP_TIMED_OUT if event.answer is Answer.TIMED_OUT else Reason.STOP_FAILED
    elif event.answer is Answer.NOT_RUNNING:
        reason, state, outcome = Reason.STOPPED, ResourceState.STOPPED, Outcome.OK
    elif event.answer is Answer.OK:
        reason = Reason.STOP_NOT_CONFIRMED
    else:
        reason, state, outcome = Reason.STOP_NOT_CONFIRMED, ResourceState.UNKNOWN, Outcome.UNKNOWN
    text = reason.told(event.detail)
    finished = _finish(standing, outcome, text, now)
    return _tell(replace(standing, phase=Phase.ENDED), state, text, None, finished)


def _judged(act: Intent, answer: Answer) -> Finish:
    """How an act ended that nobody saw the end of, by what a look afterwards shows."""
    wanted, unwanted = Answer.OK, Answer.NOT_RUNNING
    if act.verb == "stop":
        wanted, unwanted = unwanted, wanted
    outcome = Outcome.UNKNOWN
    if answer is wanted:
        outcome = Outcome.OK
    elif answer is unwanted:
        outcome = Outcome.FAILED
    return Finish(act.action, outcome, 0.0, Reason.SEEN_AFTERWARDS.told(answer.value))


def _intend(now: Now, policy: Policy, verb: str, text: str) -> Intent:
    start_s = policy.start_s + policy.monitor_s
    stop_s = policy.stop_s + policy.monitor_s
    deadline_s = {"start": start_s, "stop": stop_s}.get(verb, policy.stop_s + start_s)
    return Intent(now.action, verb, deadline_s, text)


def _acting(standing: Standing, intended: Intent) -> Standing:
    """About to start or restart."""
    phase = Phase.STARTING if intended.verb == "start" else Phase.CLEARING
    return replace(
        standing,
        phase=phase,
        act=intended,
        act_began_ns=None,
        attempts=standing.attempts + 1,
        up_since_ns=None,
    )


def _later(standing: Standing, now: Now, pause_s: float) -> Standing:
    due_ns = now.mono_ns + round(pause_s * _S)
    return replace(standing, phase=Phase.BACKING_OFF, due_ns=due_ns, up_since_ns=None)


def _finish(standing: Standing, outcome: Outcome, text: str, now: Now) -> Finish | None:
    if standing.act is None:
        return None
    began_ns = now.mono_ns if standing.act_began_ns is None else standing.act_began_ns
    return Finish(standing.act.action, outcome, (now.mono_ns - began_ns) / 1e6, text)


def _tell(
    standing: Standing,
    state: ResourceState,
    text: str,
    intended: Intent | None = None,
    finished: Finish | None = None,
) -> Decision:
    """Report and remember what was reported. A finished act is closed here and nowhere else."""
    standing = replace(standing, level=state, told=text, act=intended)
    return standing, Tell(state, text, intended, finished)

"""Decides the next step for one resource that should run. Pure: no clock, no randomness, no I/O.

`decide` takes the state of a resource and one event, and gives the new state and exactly one step. The driver
performs the step and comes back with the event it ended in, so two actions of one resource are never in
flight. Invariants: an act (start, stop, restart) begins only after the `SendReport` that intends it is on
disk; every intended act is finished by exactly one later `SendReport`; a death while the resource is up leads
to exactly one `SendReport` of down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from homeostat.contracts.nouns import ResourceState
from homeostat.contracts.wire import Finish, Intent, Outcome
from homeostat.resources import model
from homeostat.resources.ocf import ActionOutcome

_S = 1_000_000_000

SupervisionDecision = tuple[model.SupervisionState, model.SupervisionStep]


def decide(
    standing: model.SupervisionState, event: model.SupervisionEvent, now: model.Now, policy: model.Policy
) -> SupervisionDecision:
    match event:
        case model.RunnerStarted(level, act):
            return replace(standing, level=level, act=act), _probe(policy)
        case model.ReportRecorded():
            return _go_on(standing, now, policy)
        case model.ActionEnded():
            return _answered(standing, event, now, policy)
        case model.ProcessDied(detail):
            return _fell(standing, model.StepReason.PROCESS_DIED.text(detail), now, policy)
        case model.WaitEnded():
            if standing.phase is model.Phase.UP:
                return standing, model.RunAction("monitor", policy.monitor_s, policy.interval_s, watched=True)
            return replace(standing, phase=model.Phase.PROBING), _probe(policy)
        case model.StopRequested():
            return _stop(standing, now, policy)
        case _:
            assert_never(event)


def is_interruptible(standing: model.SupervisionState) -> bool:
    """Whether a wish to stop may cut the present step short: not a stop, which must not be cut short."""
    return standing.phase not in (
        model.Phase.CLEARING,
        model.Phase.LAST_STOP,
        model.Phase.LAST_LOOK,
        model.Phase.ENDED,
    )


def _probe(policy: model.Policy) -> model.RunAction:
    return model.RunAction("monitor", policy.monitor_s)


def _go_on(standing: model.SupervisionState, now: model.Now, policy: model.Policy) -> SupervisionDecision:
    """What a recorded report allows."""
    began = replace(standing, act_began_ns=now.mono_ns)
    match standing.phase:
        case model.Phase.CLEARING | model.Phase.LAST_STOP:
            return began, model.RunAction("stop", policy.stop_s)
        case model.Phase.STARTING:
            return began, model.RunAction("start", policy.start_s)
        case model.Phase.UP:
            return standing, model.WaitUntil(now.mono_ns + round(policy.interval_s * _S), watched=True)
        case model.Phase.BACKING_OFF:
            return standing, model.WaitUntil(standing.due_ns)
        case _:
            return standing, model.EndSupervision()


def _answered(
    standing: model.SupervisionState, event: model.ActionEnded, now: model.Now, policy: model.Policy
) -> SupervisionDecision:
    ok = event.answer is ActionOutcome.OK
    match standing.phase:
        case model.Phase.PROBING:
            return _looked(standing, event, now, policy)
        case model.Phase.CLEARING if ok:
            return replace(standing, phase=model.Phase.STARTING), model.RunAction("start", policy.start_s)
        case model.Phase.STARTING if ok:
            return replace(standing, phase=model.Phase.CONFIRMING), _probe(policy)
        case model.Phase.CONFIRMING if ok:
            return _rose(standing, event, now)
        case model.Phase.UP if ok:
            return standing, model.WaitUntil(now.mono_ns + round(policy.interval_s * _S), watched=True)
        case model.Phase.UP:
            return _monitor_complains(standing, event, now, policy)
        case model.Phase.CLEARING | model.Phase.STARTING | model.Phase.CONFIRMING:
            return _attempt_failed(standing, event, now, policy)
        case model.Phase.LAST_STOP if ok:
            return replace(standing, phase=model.Phase.LAST_LOOK), _probe(policy)
        case _:
            return _stopped(standing, event, now)


def _looked(
    standing: model.SupervisionState, event: model.ActionEnded, now: model.Now, policy: model.Policy
) -> SupervisionDecision:
    """The first look, at the start of day and before every later attempt."""
    act, level = standing.act, standing.level
    finished = _judged(act, event.answer) if act is not None else None
    stopped = act is not None and act.verb == "stop" and event.answer is ActionOutcome.NOT_RUNNING
    if stopped and level is ResourceState.UP:
        level = ResourceState.STOPPED  # it went away because it was told to; an outage before that stays one
    standing = replace(standing, act=None, act_began_ns=None, level=level)
    match event.answer:
        case ActionOutcome.OK:
            standing = replace(standing, phase=model.Phase.UP, up_since_ns=now.mono_ns)
            if level is ResourceState.UP and finished is None:
                return standing, model.WaitUntil(now.mono_ns + round(policy.interval_s * _S), watched=True)
            return _report(
                standing, ResourceState.UP, model.StepReason.ADOPTED.text(event.detail), None, finished
            )
        case ActionOutcome.HARD | ActionOutcome.FATAL:
            text = model.StepReason.AGENT_REFUSES.text(event.detail)
            standing = _later(standing, now, policy.backoff_most_s)
            if level is ResourceState.FAILED and standing.reported == text and finished is None:
                return standing, model.WaitUntil(standing.due_ns)
            return _report(standing, ResourceState.FAILED, text, None, finished)
        case ActionOutcome.NOT_RUNNING | ActionOutcome.SOFT | ActionOutcome.TIMED_OUT:
            state, text = _found_down(level, event)
            first = state is ResourceState.STARTING and event.answer is ActionOutcome.NOT_RUNNING
            intended = _intend(now, policy, "start" if first else "restart", text)
            unwatched = level is ResourceState.UP and event.answer is ActionOutcome.NOT_RUNNING
            standing = replace(_acting(standing, intended), level=state, reported=text, act=intended)
            return standing, model.SendReport(state, text, intended, finished, unwatched)
        case _:
            assert_never(event.answer)


def _found_down(level: ResourceState | None, event: model.ActionEnded) -> tuple[ResourceState, str]:
    """The state and the reason when a look shows that it does not run as it should."""
    match level:
        case ResourceState.UP if event.answer is ActionOutcome.NOT_RUNNING:
            return ResourceState.DOWN, model.StepReason.WENT_AWAY_UNWATCHED.text(event.detail)
        case ResourceState.UP:
            return ResourceState.DOWN, _complaint(event)
        case ResourceState.DOWN | ResourceState.FAILED:
            return level, model.StepReason.RETRY.text(event.detail)
        case _:
            return ResourceState.STARTING, model.StepReason.FIRST_START.text(event.detail)


def _complaint(event: model.ActionEnded) -> str:
    """Why a monitor's answer means down."""
    match event.answer:
        case ActionOutcome.NOT_RUNNING:
            return model.StepReason.NOT_RUNNING.text(event.detail)
        case ActionOutcome.TIMED_OUT:
            return model.StepReason.MONITOR_TIMED_OUT.text(event.detail)
        case _:
            return model.StepReason.MONITOR_FAILED.text(event.detail)


def _monitor_complains(
    standing: model.SupervisionState, event: model.ActionEnded, now: model.Now, policy: model.Policy
) -> SupervisionDecision:
    if event.answer in (ActionOutcome.HARD, ActionOutcome.FATAL):
        standing = _later(standing, now, policy.backoff_most_s)
        return _report(standing, ResourceState.FAILED, model.StepReason.AGENT_REFUSES.text(event.detail))
    return _fell(standing, _complaint(event), now, policy)


def _fell(
    standing: model.SupervisionState, text: str, now: model.Now, policy: model.Policy
) -> SupervisionDecision:
    """It was up and is down: say so at once, and restart it now or after the back-off."""
    stable = standing.up_since_ns is not None and now.mono_ns - standing.up_since_ns >= policy.stable_s * _S
    standing = replace(standing, attempts=0 if stable else standing.attempts, up_since_ns=None)
    pause_s = policy.backoff_s(standing.attempts)
    if pause_s > 0:
        return _report(_later(standing, now, pause_s), ResourceState.DOWN, text)
    intended = _intend(now, policy, "restart", text)
    return _report(_acting(standing, intended), ResourceState.DOWN, text, intended)


def _attempt_failed(
    standing: model.SupervisionState, event: model.ActionEnded, now: model.Now, policy: model.Policy
) -> SupervisionDecision:
    late = event.answer is ActionOutcome.TIMED_OUT
    match standing.phase:
        case model.Phase.CLEARING:
            reason = model.StepReason.STOP_TIMED_OUT if late else model.StepReason.STOP_FAILED
        case model.Phase.STARTING:
            reason = model.StepReason.START_TIMED_OUT if late else model.StepReason.START_FAILED
        case _:
            reason = model.StepReason.START_NOT_CONFIRMED
    hopeless = event.answer in (ActionOutcome.HARD, ActionOutcome.FATAL)
    state = ResourceState.FAILED if hopeless else ResourceState.DOWN
    pause_s = policy.backoff_most_s if hopeless else policy.backoff_s(standing.attempts)
    text = reason.text(event.detail)
    finished = _finish(standing, Outcome.FAILED, text, now)
    return _report(_later(standing, now, pause_s), state, text, None, finished)


def _rose(standing: model.SupervisionState, event: model.ActionEnded, now: model.Now) -> SupervisionDecision:
    first = standing.act is not None and standing.act.verb == "start"
    text = (model.StepReason.STARTED if first else model.StepReason.RESTARTED).text(event.detail)
    finished = _finish(standing, Outcome.OK, text, now)
    attempts = 0 if first else standing.attempts
    standing = replace(standing, phase=model.Phase.UP, attempts=attempts, up_since_ns=now.mono_ns)
    return _report(standing, ResourceState.UP, text, None, finished)


def _stop(standing: model.SupervisionState, now: model.Now, policy: model.Policy) -> SupervisionDecision:
    """The node stops: end what is open, then stop the resource."""
    interrupted = model.StepReason.INTERRUPTED.text()
    finished = _finish(standing, Outcome.UNKNOWN, interrupted, now) if standing.act is not None else None
    text = model.StepReason.STOP_ASKED.text()
    intended = _intend(now, policy, "stop", text)
    standing = replace(standing, phase=model.Phase.LAST_STOP, act=intended, act_began_ns=None)
    return _report(standing, standing.level or ResourceState.UNKNOWN, text, intended, finished)


def _stopped(
    standing: model.SupervisionState, event: model.ActionEnded, now: model.Now
) -> SupervisionDecision:
    """The end of the last stop, or of the look after it."""
    state, outcome = ResourceState.FAILED, Outcome.FAILED
    if standing.phase is model.Phase.LAST_STOP:
        late = event.answer is ActionOutcome.TIMED_OUT
        reason = model.StepReason.STOP_TIMED_OUT if late else model.StepReason.STOP_FAILED
    elif event.answer is ActionOutcome.NOT_RUNNING:
        reason, state, outcome = model.StepReason.STOPPED, ResourceState.STOPPED, Outcome.OK
    elif event.answer is ActionOutcome.OK:
        reason = model.StepReason.STOP_NOT_CONFIRMED
    else:
        reason, state, outcome = model.StepReason.STOP_NOT_CONFIRMED, ResourceState.UNKNOWN, Outcome.UNKNOWN
    text = reason.text(event.detail)
    finished = _finish(standing, outcome, text, now)
    return _report(replace(standing, phase=model.Phase.ENDED), state, text, None, finished)


def _judged(act: Intent, answer: ActionOutcome) -> Finish:
    """How an act ended that nobody saw the end of, by what a look afterwards shows."""
    wanted, unwanted = ActionOutcome.OK, ActionOutcome.NOT_RUNNING
    if act.verb == "stop":
        wanted, unwanted = unwanted, wanted
    outcome = Outcome.UNKNOWN
    if answer is wanted:
        outcome = Outcome.OK
    elif answer is unwanted:
        outcome = Outcome.FAILED
    return Finish(act.action, outcome, 0.0, model.StepReason.SEEN_AFTERWARDS.text(answer.value))


def _intend(now: model.Now, policy: model.Policy, verb: str, text: str) -> Intent:
    start_s = policy.start_s + policy.monitor_s
    stop_s = policy.stop_s + policy.monitor_s
    deadline_s = {"start": start_s, "stop": stop_s}.get(verb, policy.stop_s + start_s)
    return Intent(now.action, verb, deadline_s, text)


def _acting(standing: model.SupervisionState, intended: Intent) -> model.SupervisionState:
    """About to start or restart."""
    phase = model.Phase.STARTING if intended.verb == "start" else model.Phase.CLEARING
    return replace(
        standing,
        phase=phase,
        act=intended,
        act_began_ns=None,
        attempts=standing.attempts + 1,
        up_since_ns=None,
    )


def _later(standing: model.SupervisionState, now: model.Now, pause_s: float) -> model.SupervisionState:
    due_ns = now.mono_ns + round(pause_s * _S)
    return replace(standing, phase=model.Phase.BACKING_OFF, due_ns=due_ns, up_since_ns=None)


def _finish(standing: model.SupervisionState, outcome: Outcome, text: str, now: model.Now) -> Finish | None:
    if standing.act is None:
        return None
    began_ns = now.mono_ns if standing.act_began_ns is None else standing.act_began_ns
    return Finish(standing.act.action, outcome, (now.mono_ns - began_ns) / 1e6, text)


def _report(
    standing: model.SupervisionState,
    state: ResourceState,
    text: str,
    intended: Intent | None = None,
    finished: Finish | None = None,
) -> SupervisionDecision:
    """Report and remember what was reported. A finished act is closed here and nowhere else."""
    standing = replace(standing, level=state, reported=text, act=intended)
    return standing, model.SendReport(state, text, intended, finished)

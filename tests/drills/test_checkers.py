"""Verdicts over hand-made histories: only what is proven passes, and each reason has its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from played_run import FAULT_MS, MS, UNTIL_MS, Played, clean_facts, sampled, shipped, watched

from homeostat.drills.actions import CpuFault, Victim
from homeostat.drills.model import Baseline, Operations, Proof, ServiceOutage
from homeostat.drills.records.facts import (
    Aborted,
    Broke,
    EffectSeen,
    Fact,
    FaultNoticed,
    Injected,
    ListeningForFaults,
    MonitorEnded,
    MonitorLost,
    MonitorReady,
    OperationDone,
    PreconditionSeen,
    ToolRestarted,
    Undone,
    WindowEnded,
)
from homeostat.drills.verdicts.evaluation import judge
from homeostat.drills.verdicts.judgement import RowReason, VerdictRow
from homeostat.monitors.outage import ProbeAnswer, Sample
from homeostat.monitors.shipped.statements import ProcessChange
from homeostat.monitors.verdicts import Verdict, VerdictReason


def row_with(played: Played, why: RowReason | VerdictReason) -> VerdictRow:
    """The one binding row with this reason."""
    found = [row for row in judge(played.evidence).rows if row.why is why and row.binding]
    assert len(found) == 1, [(row.what, row.why.name) for row in judge(played.evidence).rows]
    return found[0]


def service(played: Played) -> VerdictRow:
    """The row of the service's own limit."""
    return next(row for row in judge(played.evidence).rows if row.monitor == "web")


def process(played: Played) -> VerdictRow:
    """The row of the processes' own limit."""
    return next(row for row in judge(played.evidence).rows if row.monitor == "processes")


def test_a_clean_run_passes_with_every_row_named_and_measured() -> None:
    judgement = judge(Played().evidence)
    assert (judgement.verdict, judgement.exit_code, judgement.because) == (Verdict.PASS, 0, ())
    assert all(row.requirement and row.result is Verdict.PASS for row in judgement.rows if row.binding)
    row = service(Played())
    assert row.requirement == "R1.11"
    assert row.lower_ms is not None and row.upper_ms is not None
    assert row.lower_ms <= 400 <= row.upper_ms < row.lower_ms + 50
    assert row.samples == len(sampled(0, 0))


@pytest.mark.seed("000 a negative result will be generated if the above is not met in completion")
@pytest.mark.parametrize(
    ("spoil", "verdict", "why"),
    [
        (lambda run: run.without(PreconditionSeen), Verdict.ERROR, RowReason.NOT_LOOKED),
        (lambda run: run.without(Injected), Verdict.ERROR, RowReason.NOT_INJECTED),
        (lambda run: run.without(EffectSeen), Verdict.ERROR, RowReason.NOT_LOOKED),
        (lambda run: run.without(Undone), Verdict.ERROR, RowReason.NOT_LOOKED),
        (lambda run: run.without(WindowEnded), Verdict.ERROR, RowReason.NO_WINDOW_END),
        (lambda run: run.without(MonitorReady), Verdict.ERROR, RowReason.MONITOR_MISSING),
        (lambda run: run.without(MonitorEnded), Verdict.ERROR, RowReason.MONITOR_MISSING),
        (lambda run: run.without(OperationDone), Verdict.ERROR, RowReason.OPERATIONS_NOT_RUN),
        (lambda run: run.also(17_000, Aborted("a person", "halt")), Verdict.ABORTED, RowReason.ABORTED),
        (lambda run: run.also(17_000, Broke("injector", "no answer")), Verdict.ERROR, RowReason.BROKE),
        (lambda run: run.also(17_000, MonitorLost("web", "died")), Verdict.ERROR, RowReason.MONITOR_MISSING),
    ],
)
def test_what_is_missing_is_said_and_is_never_a_pass(
    spoil: Callable[[Played], Played], verdict: Verdict, why: RowReason
) -> None:
    judgement = judge(spoil(Played()).evidence)
    assert judgement.verdict is verdict
    assert why in {row.why for row in judgement.rows if row.binding}
    assert judgement.because
    assert judgement.exit_code == {Verdict.ERROR: 12, Verdict.ABORTED: 13}[verdict]


@pytest.mark.parametrize(
    ("kind", "spoil", "why"),
    [
        (PreconditionSeen, lambda fact: replace(fact, held=False), RowReason.NOT_HELD),
        (Injected, lambda fact: replace(fact, hit=()), RowReason.NOTHING_HIT),
        (EffectSeen, lambda fact: replace(fact, proven=False), RowReason.NO_EFFECT),
        (Undone, lambda fact: replace(fact, proven=False), RowReason.NOT_UNDONE),
    ],
)
def test_a_proof_that_failed_is_an_error_and_never_a_fail(
    kind: type[Fact], spoil: Callable[[Fact], Fact], why: RowReason
) -> None:
    judgement = judge(Played().changed(kind, spoil).evidence)
    assert judgement.verdict is Verdict.ERROR
    assert why in {row.why for row in judgement.rows}


@pytest.mark.seed("000 I12 a stress without effect is an error")
def test_one_proof_of_an_effect_does_not_outweigh_one_that_failed() -> None:
    played = Played().also(3_011, EffectSeen(False, "core 1 was at 3 %"))
    assert "core 1 was at 3 %" in row_with(played, RowReason.NO_EFFECT).detail


@pytest.mark.parametrize("at_ms", [0, 2_999.5])
def test_an_undo_that_was_proven_before_the_fault_is_none(at_ms: float) -> None:
    played = Played().without(Undone).also(at_ms, Undone(True, "nothing there"))
    assert judge(played.evidence).verdict is Verdict.ERROR
    assert row_with(played, RowReason.NOT_LOOKED).what == "the fault is gone"


@pytest.mark.seed("000 I6 the longest episode's upper bound decides, the literal value stands beside it")
def test_bounds_episodes_and_literal_value() -> None:
    flaps = tuple(
        each._replace(answer=ProbeAnswer.REFUSED) if 8_000 <= each.scheduled_ns / MS < 8_200 else each
        for each in sampled(3_000, 3_400)
    )
    row = service(Played(samples={"web": flaps, "web-there": flaps}))
    assert row.episodes == 2
    assert row.literal_ms is not None and row.literal_ms > 5_000
    assert row.upper_ms is not None and row.upper_ms < 450
    assert row.total_lower_ms is not None and 540 <= row.total_lower_ms <= 600
    assert row.result is Verdict.PASS


@pytest.mark.seed("000 I6 one failed sample is not an outage of zero")
def test_one_failed_sample_has_an_upper_bound() -> None:
    row = service(Played(samples={"web": sampled(3_000, 3_010), "web-there": sampled(0, 0)}))
    assert row.literal_ms == pytest.approx(0, abs=1e-6) or row.literal_ms == 0
    assert row.upper_ms is not None and row.upper_ms > 40


@pytest.mark.seed("000 I6 an outage that never ends fails with its lower bound, censored")
def test_never_recovered_is_a_fail() -> None:
    never = sampled(3_000, UNTIL_MS + 1)
    played = Played(samples={"web": never, "web-there": never})
    row = service(played)
    assert (row.result, row.why, row.censored) == (Verdict.FAIL, VerdictReason.NEVER_RECOVERED, True)
    assert row.upper_ms is None and row.lower_ms is not None and row.lower_ms > 14_000


@pytest.mark.seed("000 the service outage time is less than 5s")
@pytest.mark.parametrize(
    ("out_ms", "verdict"),
    [(4_900, Verdict.PASS), (4_990, Verdict.INCONCLUSIVE), (5_100, Verdict.FAIL)],
)
def test_near_the_limit(out_ms: int, verdict: Verdict) -> None:
    samples = sampled(3_000, 3_000 + out_ms)
    played = Played(samples={"web": samples, "web-there": samples})
    assert service(played).result is verdict
    assert judge(played.evidence).verdict is verdict


@pytest.mark.seed("000 I27 less than is strict, where a drill does not say otherwise")
def test_the_operator_of_the_drill_decides_at_the_limit() -> None:
    played = Played()
    upper = service(played).upper_ms
    assert upper is not None

    def limited(operator: str) -> Verdict:
        check = ServiceOutage("service_outage", "R1.11", ("web",), upper, operator)  # type: ignore[arg-type]
        drill = replace(played.drill, checks=(check,))
        return service(replace(played, drill=drill)).result

    assert (limited("<"), limited("<=")) == (Verdict.INCONCLUSIVE, Verdict.PASS)


@pytest.mark.seed("000 I4 a limit of a step is advisory, binding only when asked")
def test_a_step_limit_has_its_own_row_and_binds_on_demand() -> None:
    slow = Played(sightings={"processes": watched(22_000, 40_000)})
    slow = slow.changed(WindowEnded, lambda _: WindowEnded(40_000 * MS, 40_000 * MS))
    slow = slow.changed(MonitorEnded, lambda fact: fact)
    slow.facts = [(at if not isinstance(fact, MonitorEnded) else 40_100, fact) for at, fact in slow.facts]
    slow.samples = {name: sampled(3_000, 3_400, 40_000) for name in slow.samples}
    assert judge(slow.evidence).verdict is Verdict.PASS
    step = next(row for row in judge(slow.evidence).rows if row.requirement == "R3.5")
    assert (step.result, step.binding) == (Verdict.FAIL, False)
    assert judge(replace(slow, strict_steps=True).evidence).verdict is Verdict.FAIL


@pytest.mark.seed("000 the process outage time is less than 30s")
def test_processes_that_do_not_come_back_fail_or_were_not_watched_long_enough() -> None:
    assert process(Played(sightings={"processes": watched(None)})).result is Verdict.INCONCLUSIVE
    late = Played(sightings={"processes": watched(None)}).changed(
        WindowEnded, lambda _: WindowEnded(UNTIL_MS * MS, 40_000 * MS)
    )
    assert process(late).result is Verdict.FAIL


@pytest.mark.seed("000 I22 a zombie does not exist, a new identity must be stable")
def test_existence_is_not_recovery() -> None:
    died_again = list(watched(300))
    died_again.append(
        replace(died_again[-1], at_ns=died_again[-1].at_ns + 900 * MS, change=ProcessChange.ZOMBIE)
    )
    assert process(Played(sightings={"processes": tuple(died_again)})).result is not Verdict.PASS
    same = watched(300)[:1]
    row = process(Played(sightings={"processes": same}))
    assert (row.result, row.why) == (Verdict.ERROR, VerdictReason.NOBODY_DIED)


@pytest.mark.seed("000 I22 process exists and port answers on its host are two results")
def test_a_process_that_exists_and_does_not_answer() -> None:
    deaf = Played(samples={"web": sampled(3_000, 3_400), "web-there": sampled(3_000, UNTIL_MS + 1)})
    rows = {row.monitor: row.result for row in judge(deaf.evidence).rows if row.monitor}
    assert rows["processes"] is Verdict.PASS
    assert rows["web-there"] is Verdict.INCONCLUSIVE  # 15 s of at most 30 were seen
    assert judge(deaf.evidence).verdict is not Verdict.PASS


@pytest.mark.seed("000 I28 a restart by the tool is no recovery")
def test_the_tool_restarted_it() -> None:
    played = Played().also(3_350, ToolRestarted("web-n2"))
    row = process(played)
    assert (row.result, row.why, row.detail) == (Verdict.FAIL, RowReason.TOOL_RESTARTED, "web-n2")
    assert service(played).why is RowReason.TOOL_RESTARTED
    later = Played().also(17_000, ToolRestarted("web-n2"))
    assert service(later).result is Verdict.PASS
    assert judge(later.evidence).verdict is Verdict.FAIL


@pytest.mark.seed("000 I25 the baseline is healthy, or nothing is concluded")
def test_a_bad_or_short_baseline() -> None:
    sick = tuple(
        each._replace(answer=ProbeAnswer.ERROR) if each.sent_ns == 1_000 * MS else each
        for each in sampled(0, 0)
    )
    assert service(Played(samples={"web": sick})).why is VerdictReason.BASELINE_FAILED
    drill = replace(Played().drill, baseline=Baseline(samples=151))
    row = service(Played(drill=drill))
    assert (row.result, row.why) == (Verdict.ERROR, RowReason.BASELINE_SHORT)
    assert service(Played(samples={})).why is VerdictReason.NO_BASELINE


@pytest.mark.seed("000 I7 operations do not begin before the fault could be felt")
def test_operations_too_early_show_nothing() -> None:
    quiet = Played(samples={"web": sampled(0, 0), "web-there": sampled(0, 0)})
    early = quiet.changed(OperationDone, lambda fact: replace(fact, began_ns=3_050 * MS, ended_ns=3_060 * MS))
    assert row_with(early, RowReason.OPERATED_TOO_EARLY).result is Verdict.ERROR
    assert judge(quiet.evidence).verdict is Verdict.PASS
    before = Played().changed(
        OperationDone, lambda fact: replace(fact, began_ns=2_000 * MS, ended_ns=2_100 * MS)
    )
    assert row_with(before, RowReason.OPERATED_TOO_EARLY)


@pytest.mark.seed("000 I8 operations during the fault inform, those after it bind")
def test_operations_during_the_fault_do_not_decide() -> None:
    played = Played().changed(
        OperationDone,
        lambda fact: replace(fact, ok=fact.phase == "after"),  # type: ignore[union-attr]
    )
    judgement = judge(played.evidence)
    assert judgement.verdict is Verdict.PASS
    assert any(row.why is RowReason.OPERATION_FAILED and not row.binding for row in judgement.rows)


@pytest.mark.seed("000 the operations are carried out in above order and no errors occur")
def test_failed_late_and_missing_operations() -> None:
    failed = Played().changed(OperationDone, lambda fact: replace(fact, ok=False, seen="503"))
    assert row_with(failed, RowReason.OPERATION_FAILED).detail == "ask: 503"
    late = Played().changed(OperationDone, lambda fact: replace(fact, ended_ns=17_000 * MS))
    assert row_with(late, RowReason.OPERATION_LATE).result is Verdict.FAIL


@pytest.mark.seed("000 I10 zero operations are said and never passed silently")
def test_zero_operations_are_said() -> None:
    drill = replace(Played().drill, operations=Operations())
    judgement = judge(Played(drill=drill).evidence)
    row = next(row for row in judgement.rows if row.why is RowReason.NO_OPERATIONS)
    assert (row.result, row.binding) == (Verdict.INCONCLUSIVE, False)
    assert judgement.verdict is Verdict.PASS


def asked_with_a_token(*spans: tuple[float, float, int]) -> Played:
    """A clean run whose monitor of the service has a token, and got these answers from then to then."""
    drill = Played().drill
    monitors = tuple(replace(each, token=each.id == "web") for each in drill.monitors)
    samples = sampled(0, 0)
    for from_ms, to_ms, status in spans:
        samples = tuple(
            each._replace(answer=ProbeAnswer.ERROR, status=status)
            if from_ms * MS <= each.sent_ns < to_ms * MS
            else each
            for each in samples
        )
    run = Played(drill=replace(drill, monitors=monitors))
    return replace(run, samples={**run.samples, "web": samples})


@pytest.mark.parametrize(
    ("spans", "verdict", "why"),
    [
        ([(3_000, 9_000, 401)], Verdict.ERROR, RowReason.TOKEN_REFUSED),
        ([(3_000, UNTIL_MS + 1, 401)], Verdict.ERROR, RowReason.TOKEN_REFUSED),
        ([(3_000, 3_200, 503), (9_000, UNTIL_MS + 1, 401)], Verdict.ERROR, RowReason.TOKEN_REFUSED),
        ([(3_000, 9_000, 503)], Verdict.FAIL, VerdictReason.NOT_BELOW_LIMIT),
        ([(3_000, 4_000, 503), (4_000, 9_000, 401)], Verdict.FAIL, VerdictReason.NOT_BELOW_LIMIT),
        ([(3_000, 9_000, 503), (10_000, 16_000, 401)], Verdict.FAIL, VerdictReason.NOT_BELOW_LIMIT),
        ([(3_000, 3_400, 401)], Verdict.PASS, VerdictReason.BELOW_LIMIT),
    ],
)
def test_a_token_that_is_refused_is_no_outage_of_the_service(
    spans: list[tuple[float, float, int]], verdict: Verdict, why: RowReason | VerdictReason
) -> None:
    run = asked_with_a_token(*spans)
    row = service(run)
    assert (row.result, row.why) == (verdict, why)
    assert ("each of status 401" in row.detail) == (why is RowReason.TOKEN_REFUSED)
    if why is RowReason.TOKEN_REFUSED:
        without = replace(run, drill=Played().drill)
        assert service(without).why is not RowReason.TOKEN_REFUSED, "nobody's token: the service's own answer"


@pytest.mark.seed("000 I26 an outage belongs to the deepest layer that shows it")
def test_the_deepest_layer_that_was_out_is_named() -> None:
    together = Played(samples={"web": sampled(3_000, 3_400), "web-there": sampled(3_000, 3_600)})
    assert service(together).layer == "backend"
    apart = Played(samples={"web": sampled(3_000, 3_400), "web-there": sampled(9_000, 9_400)})
    assert service(apart).layer == "service"


@pytest.mark.seed("000 I5 measured until well and settled, not only until something fails")
def test_a_window_that_ends_too_soon_passes_nothing() -> None:
    quiet = Played(samples={"web": sampled(0, 0), "web-there": sampled(0, 0)})
    soon = quiet.changed(WindowEnded, lambda _: WindowEnded(4_000 * MS, UNTIL_MS * MS))
    assert row_with(soon, RowReason.WINDOW_SHORT).result is Verdict.INCONCLUSIVE
    assert judge(soon.evidence).verdict is Verdict.INCONCLUSIVE


@pytest.mark.seed("order the report says whether our own monitors noticed, and how late")
def test_our_own_fault_manager() -> None:
    def noticed(played: Played) -> VerdictRow:
        return next(row for row in judge(played.evidence).rows if row.what.startswith("noticed"))

    row = noticed(Played())
    assert (row.result, row.lower_ms, row.upper_ms) == (Verdict.PASS, 0, 40)
    later = FaultNoticed("f-1123456789ab", "host_down", FAULT_MS * MS, (FAULT_MS + 900) * MS)
    assert noticed(Played().also(3_950, later)).upper_ms == 40, "whatever is raised after the first one"
    silent = noticed(Played().without(FaultNoticed))
    assert (silent.result, silent.why) == (Verdict.FAIL, RowReason.NOT_NOTICED)
    deaf = noticed(Played().without(FaultNoticed, ListeningForFaults))
    assert (deaf.result, deaf.why) == (Verdict.ERROR, RowReason.NOT_LISTENED)


def test_a_fault_that_was_raised_before_ours_is_not_ours() -> None:
    stale = Played().changed(FaultNoticed, lambda fact: replace(fact, after_ns=900 * MS, by_ns=1_000 * MS))
    assert any(row.why is RowReason.NOT_NOTICED for row in judge(stale.evidence).rows)


def test_proofs_count_only_in_their_place() -> None:
    """A look at the preconditions after the fault, or at the effect before it, proves nothing."""
    late = Played().without(PreconditionSeen)
    for number in range(2):
        late = late.also(5_000, PreconditionSeen(number, True, "well"))
    assert judge(late.evidence).verdict is Verdict.ERROR
    early = Played().without(EffectSeen).also(2_900, EffectSeen(True, "gone already"))
    assert judge(early.evidence).verdict is Verdict.ERROR


@pytest.mark.seed("000 I13 a fault that ended too soon proves nothing")
def test_a_fault_that_was_undone_too_soon() -> None:
    victim = Victim(service="web")
    drill = replace(shipped("cpu-overload"), preconditions=(), fault=CpuFault("cpu", victim, 5_000.0))
    played = Played(drill=drill)
    assert judge(played.evidence).verdict is Verdict.ERROR
    assert any(row.why is RowReason.FAULT_SHORT for row in judge(played.evidence).rows)
    held = played.without(Undone).also(8_500, Undone(True, "no worker left"))
    assert row_with(held, RowReason.NOT_LOOKED).detail == "whether it was still there after 5s"
    assert judge(held.evidence).verdict is Verdict.ERROR
    shown = held.also(8_100, EffectSeen(True, "every core was busy"))
    assert judge(shown.evidence).verdict is Verdict.PASS


def test_a_prober_that_was_itself_late_decides_nothing() -> None:
    late = tuple(
        Sample(each.scheduled_ns, each.sent_ns + 90 * MS, each.done_ns + 90 * MS, each.answer)
        for each in sampled(3_000, 3_400)
    )
    row = service(Played(samples={"web": late, "web-there": late}))
    assert (row.result, row.why) == (Verdict.INCONCLUSIVE, VerdictReason.PROBER_LATE)


def test_a_proof_may_have_its_own_requirement() -> None:
    drill = Played().drill
    played = Played(drill=replace(drill, checks=(*drill.checks, Proof("effect", "R6.2"))))
    assert any(row.requirement == "R6.2" for row in judge(played.evidence).rows)


NEEDED = (PreconditionSeen, MonitorReady, Injected, EffectSeen, Undone, WindowEnded, MonitorEnded)


@pytest.mark.seed("000 only what is proven passes")
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_without_any_one_proof_no_run_passes(data: st.DataObject) -> None:
    facts = clean_facts()
    needed = [at for at, (_, fact) in enumerate(facts) if isinstance(fact, NEEDED)]
    gone = data.draw(st.sets(st.sampled_from(needed), min_size=1))
    others = data.draw(st.sets(st.integers(0, len(facts) - 1)))
    left = [each for at, each in enumerate(facts) if at not in gone | others]
    out_ms = data.draw(st.integers(0, 6_000))
    samples = sampled(FAULT_MS, FAULT_MS + out_ms)
    played = Played(facts=left, samples={"web": samples, "web-there": samples})
    assert judge(played.evidence).verdict not in (Verdict.PASS, Verdict.FAIL)


@settings(max_examples=25, deadline=None)
@given(out_ms=st.integers(0, 7_000), start_ms=st.integers(0, 19))
def test_a_verdict_is_never_wrong(out_ms: int, start_ms: int) -> None:
    begun = FAULT_MS + start_ms
    samples = sampled(begun, begun + out_ms)
    result = service(Played(samples={"web": samples, "web-there": samples})).result
    assert result is not (Verdict.FAIL if out_ms < 5_000 else Verdict.PASS)

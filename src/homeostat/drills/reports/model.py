"""The report of a run: one model built from its evidence, and its published JSON schema.

Renderings add nothing to it.

Times are milliseconds from the moment just before the fault. A run whose files were changed, or whose
evidence no longer says what was recorded, is an ERROR here, whatever it says.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from homeostat import __version__
from homeostat.drills.records import facts
from homeostat.drills.records.evidence import RunEvidence
from homeostat.drills.verdicts.evaluation import VerifiedRun
from homeostat.drills.verdicts.judgement import EXIT_CODES, row_record
from homeostat.kernel.clock import iso
from homeostat.monitors.outage import Outage
from homeostat.monitors.verdicts import Verdict

_NS_PER_MS = 1_000_000


class ReportPart(BaseModel):
    """Part of a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RowReport(ReportPart):
    """One requirement and what became of it."""

    requirement: str
    what: str
    result: Verdict
    reason: str = Field(description="The reason by name; does not change between versions.")
    sentence: str
    weight: Literal["binding", "step", "informative"]
    binding: bool = Field(description="Whether this row counts for the verdict.")
    monitor: str | None
    limit_ms: float | None
    operator: Literal["<", "<="] | None
    lower_ms: float | None = Field(description="The longest outage lasted at least so long.")
    upper_ms: float | None = Field(description="And at most so long; null with `censored`: it had not ended.")
    censored: bool
    literal_ms: float | None = Field(
        description="First to last failure, as the source document reckons; of a client's calls, from the "
        "begin of the first failing one to the end of the last, as the published loop does."
    )
    literal_result: Verdict | None = Field(
        default=None, description="Of a client's calls alone: what the published loop would have said."
    )
    total_lower_ms: float | None
    total_upper_ms: float | None
    episodes: int | None
    samples: int | None
    lateness_ms: float | None = Field(description="The prober's own worst lateness.")
    latency_before_p99_ms: float | None
    latency_during_p99_ms: float | None
    layer: str | None = Field(description="The deepest layer that was out at the same time.")
    detail: str


class EpisodeReport(ReportPart):
    """One outage: from at the earliest to at the latest, and how long at least."""

    from_ms: float
    until_ms: float | None = Field(description="null: it had not ended.")
    lower_ms: float
    upper_ms: float | None


class LayerReport(ReportPart):
    """What one monitor saw."""

    monitor: str
    layer: str
    kind: Literal["tcp", "http", "process", "cli"]
    episodes: list[EpisodeReport]
    samples: int
    back_ms: float | None = Field(
        default=None,
        description="When it answered again after its last outage, or the processes were whole again; "
        "null: it was never seen out, or it had not come back.",
    )
    lateness_ms: float | None = Field(default=None, description="The prober's own worst lateness.")
    before_p50_ms: float | None
    before_p99_ms: float | None
    during_p50_ms: float | None
    during_p99_ms: float | None


class MarkReport(ReportPart):
    """A moment worth drawing."""

    name: str
    at_ms: float


class CleanupReport(ReportPart):
    """One step after the verdict."""

    step: str
    ok: bool
    seen: str


class VerificationReport(ReportPart):
    """Whether the files are what they were, and still say the same."""

    sound: bool
    recorded: Verdict | None = Field(description="What was said then; null when the run ended before.")
    recomputed: Verdict
    closed: bool
    changes: list[str]
    differences: list[str]


class LeftOutReport(ReportPart):
    """A monitor of the drill that this site could not have."""

    monitor: str
    why: str


class LoadReport(ReportPart):
    """How busy the machine of the monitors was: load averages over 1, 5 and 15 minutes, and its CPUs."""

    when: Literal["begin", "end"]
    load_1m: float
    load_5m: float
    load_15m: float
    cpus: int


class DrillReport(ReportPart):
    """The report of one run."""

    schema_version: Literal[1] = 1
    homeostat: str
    run: str
    drill: str
    title: str
    deviations: list[str] = Field(
        default_factory=list, description="In what site and run are not what a document asks for."
    )
    left_out: list[LeftOutReport] = Field(default_factory=list)
    references: list[str]
    suite: str | None
    seed: int
    victims: list[str]
    injector: str
    began_at: str
    verdict: Verdict
    exit_code: int
    because: list[str]
    rows: list[RowReport]
    layers: list[LayerReport]
    marks: list[MarkReport]
    window_ms: float | None
    load: list[LoadReport] = Field(default_factory=list)
    brought_back: list[str]
    cleanup: list[CleanupReport]
    evidence_sha256: str | None
    verification: VerificationReport


def report_of(verified: VerifiedRun, cleanup: tuple[facts.CleanedUp, ...] = ()) -> DrillReport:
    """Everything that is known of a run."""
    evidence, judgement = verified.evidence, verified.judgement
    plan = evidence.plan
    verdict, because = judgement.verdict, list(judgement.because)
    if not verified.sound:
        unsound = [*verified.files.changes, *verified.differences] or ["the run was never frozen"]
        verdict = verdict if verdict is Verdict.ABORTED else Verdict.ERROR
        because = [*unsound, *because]
    injected, ended = evidence.last(facts.Injected), evidence.last(facts.WindowEnded)
    origin_ns = None if injected is None else injected.before_ns
    return DrillReport(
        homeostat=__version__,
        run=plan.run,
        drill=plan.drill.id,
        title=plan.drill.title,
        deviations=list(plan.deviations),
        left_out=[LeftOutReport(monitor=each.monitor, why=each.why) for each in plan.left_out],
        references=list(plan.drill.references),
        suite=plan.suite,
        seed=plan.seed,
        victims=list(plan.victims),
        injector=plan.drill.fault.injector,
        began_at=iso(plan.began_at_ns),
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        because=because,
        rows=[RowReport(**row_record(row)) for row in judgement.rows],
        layers=[_layer(evidence, each.id, origin_ns) for each in plan.drill.monitors],
        marks=_marks(evidence, origin_ns),
        window_ms=None if ended is None or origin_ns is None else (ended.until_ns - origin_ns) / _NS_PER_MS,
        load=[LoadReport(**asdict(each)) for each in evidence.all(facts.LoadSeen)],
        brought_back=[f"{each.what}: {each.by}" for each in evidence.all(facts.BroughtBack)],
        cleanup=[CleanupReport(step=each.step, ok=each.ok, seen=each.seen) for each in cleanup],
        evidence_sha256=verified.files.digest,
        verification=VerificationReport(
            sound=verified.sound,
            recorded=verified.recorded,
            recomputed=judgement.verdict,
            closed=verified.files.closed,
            changes=list(verified.files.changes),
            differences=list(verified.differences),
        ),
    )


def schema() -> dict[str, Any]:
    """The JSON schema of a report, as docs/drill-report.schema.json has it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **DrillReport.model_json_schema(mode="serialization"),
    }


def _layer(evidence: RunEvidence, name: str, origin_ns: int | None) -> LayerReport:
    monitor = evidence.monitor(name)
    outage: Outage | None = None
    if monitor.kind == "process":
        episodes = _missing(evidence, name)
        samples = len(evidence.sightings.get(name, ()))
    else:
        outage = None if origin_ns is None else evidence.outage(name)
        episodes = [] if outage is None or origin_ns is None else _episodes(outage, origin_ns)
        samples = len(evidence.samples.get(name, ()))
    before = outage.before if outage else None
    during = outage.during if outage else None
    return LayerReport(
        monitor=name,
        layer=monitor.layer.value,
        kind=monitor.kind,
        episodes=episodes,
        samples=samples,
        back_ms=episodes[-1].until_ms if episodes else None,
        lateness_ms=outage.lateness_ms if outage else None,
        before_p50_ms=before.p50_ms if before else None,
        before_p99_ms=before.p99_ms if before else None,
        during_p50_ms=during.p50_ms if during else None,
        during_p99_ms=during.p99_ms if during else None,
    )


def _episodes(outage: Outage, origin_ns: int) -> list[EpisodeReport]:
    return [
        EpisodeReport(
            from_ms=(each.after_ns - origin_ns) / _NS_PER_MS,
            until_ms=None if each.until_ns is None else (each.until_ns - origin_ns) / _NS_PER_MS,
            lower_ms=each.lower_ms,
            upper_ms=each.upper_ms,
        )
        for each in outage.episodes
    ]


def _missing(evidence: RunEvidence, name: str) -> list[EpisodeReport]:
    """The time without the whole set of processes, from the fault on."""
    outage = evidence.process(name)
    if outage is None or not outage.died:
        return []
    lower_ms, upper_ms = outage.lower_ms, outage.upper_ms
    return [EpisodeReport(from_ms=0.0, until_ms=upper_ms, lower_ms=lower_ms, upper_ms=upper_ms)]


def _marks(evidence: RunEvidence, origin_ns: int | None) -> list[MarkReport]:
    """The moments of the run that have one on the monitors' clock."""
    if origin_ns is None:
        return []
    noticed = sorted(each.by_ns for each in evidence.all(facts.FaultNoticed) if each.by_ns >= origin_ns)
    moments = {
        "fault": origin_ns,
        **_effect_mark(evidence),
        "noticed by us": noticed[0] if noticed else None,
        "undo proven" if _all_proven(evidence, facts.Undone) else "undo not proven": evidence.at_ns(
            facts.Undone
        ),
    }
    return [
        MarkReport(name=name, at_ms=(at_ns - origin_ns) / _NS_PER_MS)
        for name, at_ns in moments.items()
        if at_ns is not None
    ]


def _effect_mark(evidence: RunEvidence) -> dict[str, int | None]:
    """When it was first proven, or last was not."""
    if not _all_proven(evidence, facts.EffectSeen):
        return {"effect not proven": evidence.at_ns(facts.EffectSeen)}
    seen = (each.at_ns for each in evidence.entries if isinstance(each.fact, facts.EffectSeen))
    return {"effect proven": next(seen, None)}


def _all_proven(evidence: RunEvidence, kind: type[facts.EffectSeen] | type[facts.Undone]) -> bool:
    return all(each.proven for each in evidence.all(kind))

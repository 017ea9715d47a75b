"""Reports of drills as a tool would hand them in, made without a run."""

from __future__ import annotations

from typing import Any

from homeostat.drills.reports.model import (
    DrillReport,
    EpisodeReport,
    LayerReport,
    MarkReport,
    RowReport,
    VerificationReport,
)
from homeostat.drills.verdicts.judgement import EXIT_CODES
from homeostat.monitors.verdicts import Verdict

LIMIT_MS = 5_000.0


def outage_row(lower_ms: float, upper_ms: float | None, result: Verdict) -> RowReport:
    """The row that decides."""
    return RowReport(
        requirement="R1.11", what="outage of web", result=result, reason="BELOW_LIMIT",
        sentence="the upper bound keeps the limit" if result is Verdict.PASS else "the lower bound breaks it",
        weight="binding", binding=True, monitor="web", limit_ms=LIMIT_MS, operator="<", lower_ms=lower_ms,
        upper_ms=upper_ms, censored=upper_ms is None, literal_ms=lower_ms, total_lower_ms=lower_ms,
        total_upper_ms=upper_ms, episodes=1, samples=900, lateness_ms=1.5, latency_before_p99_ms=2.0,
        latency_during_p99_ms=9.0, layer="backend", detail="",
    )  # fmt: skip


def report(run: str, drill: str = "service-down", *, lower_ms: float = 380, upper_ms: float = 421) -> Any:
    """One run with one outage, as JSON."""
    verdict = Verdict.PASS if upper_ms < LIMIT_MS else Verdict.FAIL
    row = outage_row(lower_ms, upper_ms, verdict)
    proof = row.model_copy(
        update={
            "requirement": "R0.3", "what": "the fault had its effect", "result": Verdict.PASS,
            "sentence": "it was proven",
            "monitor": None, "limit_ms": None, "operator": None, "lower_ms": None, "upper_ms": None,
            "literal_ms": None, "samples": None, "layer": None, "detail": "web-n1: pid 100 is gone",
        }
    )  # fmt: skip
    episode = EpisodeReport(from_ms=5.0, until_ms=upper_ms + 5, lower_ms=lower_ms, upper_ms=upper_ms)
    layers = [
        LayerReport(
            monitor=name, layer=layer, kind="http", episodes=[episode], samples=900, before_p50_ms=1.0,
            before_p99_ms=2.0, during_p50_ms=1.5, during_p99_ms=9.0,
        )
        for name, layer in (("web", "service"), ("web-there", "backend"))
    ]  # fmt: skip
    made = DrillReport(
        homeostat="1", run=run, drill=drill, title="A web process dies", references=["GS NFV-REL 001"],
        suite=None, seed=7, victims=["n1"], injector="kill", began_at="2026-11-21T10:00:00.000000Z",
        verdict=verdict, exit_code=EXIT_CODES[verdict],
        because=[] if verdict is Verdict.PASS else ["outage of web: the lower bound breaks the limit"],
        rows=[row, proof], layers=layers,
        marks=[MarkReport(name="fault", at_ms=0), MarkReport(name="noticed by us", at_ms=44.0)],
        window_ms=15_000, brought_back=["web-n1: the runner on n1"], cleanup=[], evidence_sha256="ab" * 32,
        verification=VerificationReport(
            sound=True, recorded=verdict, recomputed=verdict, closed=True, changes=[], differences=[]
        ),
    )  # fmt: skip
    return made.model_dump(mode="json")

"""Reports that the site's server does not have: their tool was killed, or the server did not answer then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homeostat.drills.records.history import PLAN, files_of, read_cleanup
from homeostat.drills.reports.model import report_of
from homeostat.drills.running.announcing import announcing_to
from homeostat.drills.running.ordered import Parts
from homeostat.drills.site import SiteServer
from homeostat.drills.verdicts.verification import verify
from homeostat.kernel.errors import HomeostatError


@dataclass(frozen=True, slots=True)
class Told:
    """A run, or all reports when the server did not answer at all."""

    what: str
    ok: bool
    seen: str


async def tell_unreported(parts: Parts, *, asked_for: bool) -> list[Told]:
    """Send what lies here, closed. `asked_for`: a server that does not answer is a row, else only a line."""
    server = parts.site.server
    if server is None:
        return []
    here = {path.parent.name: path.parent for path in parts.runs.glob(f"*/{PLAN}")}
    try:
        unreported = await announcing_to(server.url, server.token_file).unreported()
    except HomeostatError as error:
        words = f"the site's server was not told: {error}; `homeostat drill heal` once more when it answers"
        parts.progress.say(words)
        return [Told("reports", False, words)] if asked_for else []
    told: list[Told] = []
    for run in unreported:
        try:
            if run in here and files_of(here[run]).closed:
                verdict = await _send(server, run, here[run])
                told.append(Told(run, True, f"the site's server knows: {verdict}"))
        except HomeostatError as error:
            told.append(Told(run, False, f"the site's server has no report of it: {error}"))
    return told


async def _send(server: SiteServer, run: str, folder: Path) -> str:
    report = report_of(verify(folder), read_cleanup(folder))
    announcing = announcing_to(server.url, server.token_file, run)
    await announcing.finish(report.model_dump(mode="json"))
    return report.verdict.value

"""Whether what looks like an outage is only a token that was refused. Pure.

A monitor asks with one token for the whole run. When that is revoked, every answer is 401 from then on,
however well the service is: such an episode says nothing, and is counted for no verdict about the service.
"""

from __future__ import annotations

from homeostat.drills.model import ServiceOutage
from homeostat.drills.records.evidence import Evidence
from homeostat.monitors.outage import Episode, Outage
from homeostat.monitors.samples import FAILED

REFUSED = 401


def refusals(evidence: Evidence, outage: Outage, check: ServiceOutage, name: str) -> int:
    """So many answers are all that this monitor's outage consists of; 0 when it is one of the service.

    It is one of the service, too, when another episode than those breaks the limit.
    """
    if not evidence.monitor(name).token:
        return 0
    counts = {each: _refused(evidence, name, each) for each in outage.episodes}
    others = (each for each, count in counts.items() if not count)
    if any(each.upper_ms is None or each.upper_ms >= check.limit_ms for each in others):
        return 0
    return sum(counts.values())


def _refused(evidence: Evidence, name: str, episode: Episode) -> int:
    """How many answers of 401 it has, when it has no other failure."""
    end_ns = episode.until_ns
    failed = [
        each.status
        for each in evidence.samples.get(name, ())
        if each.answer in FAILED
        and each.done_ns >= episode.first_bad_ns
        and (end_ns is None or each.sent_ns <= end_ns)
    ]
    return len(failed) if failed and all(each == REFUSED for each in failed) else 0

"""The clean-up, after the verdict is frozen: nothing that it does can change what was measured.

Deletes only what this run made, by its ledger.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from homeostat.drills.model import Drill
from homeostat.drills.records.book import now_ns
from homeostat.drills.records.facts import CleanedUp
from homeostat.drills.records.history import Recording
from homeostat.drills.records.ledger import Ledger, read_left
from homeostat.drills.running.cloud_cleaning import delete_in_cloud
from homeostat.drills.running.ordered import Parts
from homeostat.kernel.errors import HomeostatError

BACK_WITHIN_S = 5.0
"""So long what keeps it up has, before the clean-up starts it."""
STARTED_WITHIN_S = 60.0
"""So long what was started may load before it answers."""


DELETES = "delete_test_objects"
_DELETED = (*range(200, 300), 404, 410)
_DELETE_WITHIN_S = 10.0


async def clean_up(parts: Parts, drill: Drill, victim: str, recording: Recording, ledger: Ledger) -> bool:
    """Every step of the drill, each by itself: one that fails stops no other.

    Whether no test object is left; else `drill heal` goes on.
    """
    deleted = True
    for step in drill.cleanup:
        try:
            if step.kind == DELETES:
                deleted = False
                done = await delete_made(parts, recording.folder, ledger)
                deleted = done.ok
            else:
                service = step.service or drill.fault.target.service
                done = await _running(parts, str(service), victim, recording.folder.name)
        except (HomeostatError, OSError) as error:
            done = CleanedUp(step.kind, False, str(error))
        recording.cleaned_up(done, now_ns())
    return deleted


async def delete_made(parts: Parts, folder: Path, ledger: Ledger) -> CleanedUp:
    """The newest first; what is gone already is gone."""
    left = read_left(folder)
    failed = await delete_in_cloud(parts, left.in_cloud, ledger) if left.in_cloud else []
    urls = left.objects
    for url in urls:
        asked = await parts.asker.until("DELETE", url, _DELETED, _DELETE_WITHIN_S)
        if asked.ok:
            ledger.deleted(url)
        else:
            failed.append(f"{url}: {asked.seen}")
    made = f"{len(urls) + len(left.in_cloud)} were left of what was made, all gone"
    return CleanedUp(DELETES, not failed, "; ".join(failed) or made)


async def _running(parts: Parts, service: str, victim: str, run: str) -> CleanedUp:
    """Whether it runs on the host that was hit: what keeps it up has a few seconds, then it is started."""
    step = f"restart_if_down {service}"
    if victim not in parts.site.services[service].hosts:
        return CleanedUp(step, True, f"it is not on {victim or 'any host that was hit'}")
    if await _back(parts, service, victim) is None:
        return CleanedUp(step, True, f"it runs on {victim}")
    parts.progress.say(f"{service} is down on {victim}; starting it")
    try:
        profile = parts.site.services[service].hosts[victim].profile
        by = await parts.transports[victim].restart(profile, run)
    except HomeostatError as error:
        return CleanedUp(step, False, f"it is down on {victim}, and not started: {error}")
    seen = await _back(parts, service, victim, STARTED_WITHIN_S)
    words = "it runs" if seen is None else f"still down ({seen})"
    return CleanedUp(step, seen is None, f"it was down on {victim}; started by {by}; {words}")


async def _back(parts: Parts, service: str, victim: str, within_s: float = BACK_WITHIN_S) -> str | None:
    """None as soon as it serves on that host; what was seen last when it does not in time."""
    end_s = time.monotonic() + within_s
    while True:
        found = {each.host: each for each in await parts.looking.serving(service)}[victim]
        if found.serves:
            return None
        if time.monotonic() > end_s:
            return found.seen
        await asyncio.sleep(0.2)

"""The clean-up of a run on its hosts and in its cloud, after the verdict is frozen.

Nothing that it does can change what was measured.
Deletes only what this run made, by the names in its ledger, which are of one run each; in a cloud each is
looked for until it is gone. Of a request whose answer nobody heard the object may come later than we look:
then it is looked for a while longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from homeostat.drills.clouds.connection import Calls, UserCloud, open_cloud
from homeostat.drills.model import Drill
from homeostat.drills.records.evidence import CloudLeftover, Ledger, read_leftovers
from homeostat.drills.records.facts import CleanedUp
from homeostat.drills.records.history import Recording
from homeostat.drills.running.cancellation import RunDependencies
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.drills.site import DrillsSettings, SiteCloud
from homeostat.kernel.errors import GiveUp, HomeostatError, NotFound

_CALL_WITHIN_S = 30.0
_LOOK_S = 1.0


async def delete_in_cloud(parts: RunDependencies, left: Iterable[CloudLeftover], ledger: Ledger) -> list[str]:
    """A line for each that is not known to be gone."""
    here, cloud = [], parts.site.cloud
    failed = []
    for each in left:
        if cloud is not None and each.cloud == cloud.name:
            here.append(each)
        else:
            failed.append(
                f"{each.what} {each.name}: it is in cloud {each.cloud}, which the site does not name"
            )
    if cloud is not None and here:
        parts.progress.say(f"deleting test objects that drills left in cloud {cloud.name}: {len(here)}")
        failed += await _delete(cloud, here, ledger, parts.site.drills)
    return failed


async def _delete(
    cloud: SiteCloud, left: list[CloudLeftover], ledger: Ledger, settings: DrillsSettings
) -> list[str]:
    """Each is asked to go before any is waited for. A connection that had trouble is not used again."""
    calls, driver = Calls(), None
    began_s = time.monotonic()
    comes_s, now_ns = settings.comes_within_s, time.time_ns()
    surely_s = {each: began_s + may_come_s(each.until_ns, now_ns, comes_s) for each in left}
    end_s = max(began_s + settings.delete_within_s, *surely_s.values())
    seen: dict[CloudLeftover, str] = {}
    try:
        while left:
            for each in tuple(left):
                if driver is None:
                    driver = await calls.call(lambda _: open_cloud(cloud), _CALL_WITHIN_S)
                try:
                    there = await _asked_to_go(driver, calls, each)
                    seen[each] = there or "it may still come"
                    if there:  # it has come, and a name is asked for once
                        surely_s[each] = began_s
                except HomeostatError as error:
                    there = seen[each] = str(error)
                    driver.close()
                    driver = None
                if not there and time.monotonic() >= surely_s[each]:
                    ledger.gone(each.what, each.name)
                    left = [other for other in left if other is not each]
            if left and time.monotonic() > end_s:
                break
            await asyncio.sleep(_LOOK_S if left else 0)
    finally:
        if driver is not None:
            driver.close()
    return [f"{each.what} {each.name}: {seen[each]}" for each in left]


def may_come_s(until_ns: int | None, now_ns: int, comes_within_s: float) -> float:
    """How long a thing may still come whose request was sent up to then, by the wall clock."""
    if until_ns is None:
        return 0.0
    return min(comes_within_s, max(0.0, (until_ns - now_ns) / 1e9 + comes_within_s))


async def _asked_to_go(cloud: UserCloud, calls: Calls, thing: CloudLeftover) -> str:
    """Empty when nothing of that name is there; else why it still is. Errors when nobody says."""
    words = ""
    for id in await calls.call(partial(cloud.ids, thing.what, thing.name), _CALL_WITHIN_S):
        words = words or "it is still in the list"
        try:
            await calls.call(partial(cloud.delete, thing.what, id), _CALL_WITHIN_S)
        except NotFound:
            continue
        except GiveUp as error:  # not in the state that it is in, maybe later
            words = str(error)
    return words


BACK_WITHIN_S = 5.0
"""So long what keeps it up has, before the clean-up starts it."""
STARTED_WITHIN_S = 60.0
"""So long what was started may load before it answers."""


DELETES = "delete_test_objects"
_DELETED = (*range(200, 300), 404, 410)
_DELETE_WITHIN_S = 10.0


async def clean_up(
    parts: RunDependencies, drill: Drill, victim: str, recording: Recording, ledger: Ledger
) -> bool:
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


async def delete_made(parts: RunDependencies, folder: Path, ledger: Ledger) -> CleanedUp:
    """The newest first; what is gone already is gone."""
    left = read_leftovers(folder)
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


async def _running(parts: RunDependencies, service: str, victim: str, run: str) -> CleanedUp:
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


async def _back(
    parts: RunDependencies, service: str, victim: str, within_s: float = BACK_WITHIN_S
) -> str | None:
    """None as soon as it serves on that host; what was seen last when it does not in time."""
    end_s = time.monotonic() + within_s
    while True:
        found = {each.host: each for each in await parts.looking.serving(service)}[victim]
        if found.serves:
            return None
        if time.monotonic() > end_s:
            return found.seen
        await asyncio.sleep(0.2)

"""What runs have left in a cloud: found by name, deleted, and looked for until it is gone.

Deletes only names that a ledger has, which are of one run each. Of a request whose answer nobody heard the
thing may come later than we look: then it is looked for a while longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial

from homeostat.drills.clouds.calls import Calls
from homeostat.drills.clouds.opening import opened
from homeostat.drills.clouds.port import Cloud
from homeostat.drills.records.ledger import InCloud, Ledger
from homeostat.drills.running.ordered import Parts
from homeostat.drills.settings import DrillsSettings
from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import GiveUp, HomeostatError, NotFound

_CALL_WITHIN_S = 30.0
_LOOK_S = 1.0


async def delete_in_cloud(parts: Parts, left: Iterable[InCloud], ledger: Ledger) -> list[str]:
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
        parts.progress.say(f"deleting what is left in cloud {cloud.name}: {len(here)}")
        failed += await _delete(cloud, here, ledger, parts.site.drills)
    return failed


async def _delete(
    cloud: SiteCloud, left: list[InCloud], ledger: Ledger, settings: DrillsSettings
) -> list[str]:
    """Each is asked to go before any is waited for. A connection that had trouble is not used again."""
    calls, driver = Calls(), None
    began_s = time.monotonic()
    comes_s, now_ns = settings.comes_within_s, time.time_ns()
    surely_s = {each: began_s + may_come_s(each.until_ns, now_ns, comes_s) for each in left}
    end_s = max(began_s + settings.delete_within_s, *surely_s.values())
    seen: dict[InCloud, str] = {}
    try:
        while left:
            for each in tuple(left):
                if driver is None:
                    driver = await calls.call(lambda _: opened(cloud), _CALL_WITHIN_S)
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


async def _asked_to_go(cloud: Cloud, calls: Calls, thing: InCloud) -> str:
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

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
from homeostat.drills.ledger import InCloud, Ledger
from homeostat.drills.ordered import Parts
from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import HomeostatError, NotFound

WITHIN_S = 120.0
"""So long for all of it; a server that is being built is gone once it was built."""
COMES_WITHIN_S = 15.0
"""A thing is in the list so long after the service got the request for it."""
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
        failed += await _delete(cloud, here, ledger)
    return failed


async def _delete(cloud: SiteCloud, left: list[InCloud], ledger: Ledger) -> list[str]:
    calls = Calls()
    try:
        driver = await calls.call(lambda _: opened(cloud), _CALL_WITHIN_S)
    except HomeostatError as error:
        return [f"{each.what} {each.name}: {error}" for each in left]
    try:
        return await _until_gone(driver, calls, left, ledger)
    finally:
        driver.close()


async def _until_gone(cloud: Cloud, calls: Calls, left: list[InCloud], ledger: Ledger) -> list[str]:
    """Each is asked to go before any is waited for."""
    began_s = time.monotonic()
    surely_s = {each: began_s + comes_within_s(each.until_ns, time.time_ns()) for each in left}
    seen: dict[InCloud, str] = {}
    while left:
        for each in tuple(left):
            words = await _look(cloud, calls, each)
            if words is None and time.monotonic() >= surely_s[each]:
                ledger.gone(each.what, each.name)
                left = [other for other in left if other is not each]
            seen[each] = words or "it may still come"
        if left and time.monotonic() > began_s + WITHIN_S:
            break
        await asyncio.sleep(_LOOK_S if left else 0)
    return [f"{each.what} {each.name}: {seen[each]}" for each in left]


def comes_within_s(until_ns: int | None, now_ns: int) -> float:
    """How long a thing may still come whose request was sent up to then, by the wall clock."""
    if until_ns is None:
        return 0.0
    return min(COMES_WITHIN_S, max(0.0, (until_ns - now_ns) / 1e9 + COMES_WITHIN_S))


async def _look(cloud: Cloud, calls: Calls, thing: InCloud) -> str | None:
    """None when nothing of that name is there; else it is asked to go, and why it is still there."""
    words = "it is still in the list"
    try:
        found = await calls.call(partial(cloud.ids, thing.what, thing.name), _CALL_WITHIN_S)
        for id in found:
            try:
                await calls.call(partial(cloud.delete, thing.what, id), _CALL_WITHIN_S)
            except NotFound:
                continue
            except HomeostatError as error:
                words = str(error)
    except HomeostatError as error:
        return str(error)
    return words if found else None

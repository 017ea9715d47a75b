"""The operations of a drill on a cloud, one after the other: each once, or looked at until it is so.

What is created has a name of this run, and the name is in the ledger before the cloud hears of it. One that
fails is an answer of its own (`Asked`), never an exception.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, assert_never

from homeostat.drills.cloud_operation import MAKES_SERVER, CloudOperation, What
from homeostat.drills.clouds.calls import Calls
from homeostat.drills.clouds.port import Cloud, Wanted
from homeostat.drills.planning.asking import Asked
from homeostat.drills.records.ledger import Ledger
from homeostat.kernel.errors import GiveUp, HomeostatError

T = TypeVar("T")
LOOK_S = 0.5
"""`active` and `gone` look so often: a round trip of a list is a tenth of it."""


def name_of(run: str, what: What, round_: int | None = None) -> str:
    """Of one thing of one run; of one round, when it is made round and round."""
    return f"homeostat-{run}-{what}" + ("" if round_ is None else f"-d{round_}")


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that this run asked for. Without an id, nobody knows whether it is there."""

    what: What
    name: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Making:
    """What is the same for every step of a run."""

    run: str
    cloud: str
    """By the name that clouds.yaml has for it."""
    calls: Calls
    ledger: Ledger
    content: Path | bytes


class CloudSteps:
    """A sequence on one connection. `things`: what an earlier one has made; what this one makes is added."""

    def __init__(
        self, cloud: Cloud, making: Making, things: dict[What, Thing], round_: int | None = None
    ) -> None:
        self._cloud, self._making, self._round, self._things = cloud, making, round_, things

    def close(self) -> None:
        """Nothing more is asked; a call that goes on ends with the request that it is at."""
        self._cloud.close()

    async def lacks(self, operation: CloudOperation) -> str | None:
        """Why the cloud cannot have such a thing at all. RetryLater, GiveUp when it does not say."""
        asked = partial(self._cloud.lacks, operation.what)
        return await self._making.calls.call(asked, operation.deadline_ms / 1000)

    async def do(self, operation: CloudOperation) -> Asked:
        """One operation, to its end or its deadline."""
        end_s = time.monotonic() + operation.deadline_ms / 1000
        try:
            match operation.does:
                case "create":
                    return await self._create(operation, end_s)
                case "active":
                    return await self._active(*self._thing(operation.what), end_s)
                case "there":
                    return await self._there(*self._thing(operation.what), end_s)
                case "delete":
                    return await self._delete(*self._thing(operation.what), end_s)
                case "gone":
                    return await self._gone(*self._thing(operation.what), end_s)
                case "list":
                    found = await self._call(partial(self._cloud.list, operation.what), end_s)
                    return Asked(True, f"{found} in the list")
                case _:
                    assert_never(operation.does)
        except HomeostatError as error:
            return Asked(False, str(error))

    async def _call(self, act: Callable[[float], T], end_s: float) -> T:
        return await self._making.calls.call(act, end_s - time.monotonic())

    def _thing(self, what: What) -> tuple[Thing, str]:
        """With its id. GiveUp when an earlier step did not make it."""
        thing = self._things.get(what)
        if thing is None or thing.id is None:
            raise GiveUp(f"there is no {what} of this run: it was not made")
        return thing, thing.id

    async def _create(self, operation: CloudOperation, end_s: float) -> Asked:
        making, what = self._making, operation.what
        thing = Thing(what, name_of(making.run, what, self._round))
        wanted = Wanted(what, thing.name, f"drill {making.run} of homeostat; deleted after it")
        if what == "image":
            wanted = replace(wanted, content=making.content)
        if operation.ram_mib is not None:
            wanted = replace(wanted, ram_mib=operation.ram_mib)
        if what == "server":
            image, flavor = (self._thing(each)[1] for each in MAKES_SERVER)
            wanted = replace(wanted, image=image, flavor=flavor)
        making.ledger.creating(making.cloud, thing.what, thing.name, end_s - time.monotonic())
        try:
            id = await self._call(partial(self._cloud.create, wanted), end_s)
        except GiveUp:
            making.ledger.answered(what, thing.name)
            raise
        making.ledger.answered(what, thing.name)
        self._things[what] = replace(thing, id=id)
        return Asked(True, f"{thing.name} is {id}")

    async def _active(self, thing: Thing, id: str, end_s: float) -> Asked:
        while True:
            state = await self._call(partial(self._cloud.state, thing.what, id), end_s)
            seen = state.word + (f": {state.fault}" if state.fault else "")
            if state.reached != "not yet":
                return Asked(state.reached == "active", seen)
            if not await _pause(end_s):
                return Asked(False, f"still {seen}")

    async def _there(self, thing: Thing, id: str, end_s: float) -> Asked:
        """This very one is in the list, by its name and its id."""
        while True:
            if id in await self._call(partial(self._cloud.ids, thing.what, thing.name), end_s):
                return Asked(True, f"{thing.name} is in the list")
            if not await _pause(end_s):
                return Asked(False, f"{thing.name} is not in the list")

    async def _delete(self, thing: Thing, id: str, end_s: float) -> Asked:
        await self._call(partial(self._cloud.delete, thing.what, id), end_s)
        return Asked(True, f"deletion of {thing.name} is accepted")

    async def _gone(self, thing: Thing, _: str, end_s: float) -> Asked:
        """Nothing of its name is in the list: deletion is only begun when it is accepted."""
        while True:
            if not await self._call(partial(self._cloud.ids, thing.what, thing.name), end_s):
                self._making.ledger.gone(thing.what, thing.name)
                del self._things[thing.what]
                return Asked(True, f"{thing.name} is not in the list")
            if not await _pause(end_s):
                return Asked(False, f"{thing.name} is still in the list")


async def _pause(end_s: float) -> bool:
    """Until the next look; False when there is no time for one."""
    if time.monotonic() + LOOK_S >= end_s:
        return False
    await asyncio.sleep(LOOK_S)
    return True

"""Carries out a user's operations: set-up before the fault, canary during it, checks under and after.

One after the other on the site's cloud, each once, or polled until it holds. What is created has a name of
this run, and the name is in the ledger before the cloud hears of it. One that fails is a result with its
error, never an exception.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, assert_never

from homeostat.drills.actions import CLOUD_OBJECT_KINDS, MAKES_SERVER, CloudObjectKind, CloudOperation, Phase
from homeostat.drills.clouds import connection
from homeostat.drills.model import Drill, Operation, Step
from homeostat.drills.planning.preparation import cloud_of, operation_url
from homeostat.drills.planning.service_client import ServiceAnswer
from homeostat.drills.records.evidence import Ledger, RunRecorder
from homeostat.drills.records.facts import OperationDone, OperationLeftOut
from homeostat.drills.running.cancellation import NotBegun, RunDependencies
from homeostat.drills.shipped.keeper.machine import now_ns
from homeostat.kernel.errors import GiveUp, HomeostatError

T = TypeVar("T")
LOOK_S = 0.5
"""`active` and `gone` look so often: a round trip of a list is a tenth of it."""


def name_of(run: str, what: CloudObjectKind, round_: int | None = None) -> str:
    """Of one thing of one run; of one round, when it is made round and round."""
    return f"homeostat-{run}-{what}" + ("" if round_ is None else f"-d{round_}")


@dataclass(frozen=True, slots=True)
class CloudObject:
    """Something that this run asked for. Without an id, nobody knows whether it is there."""

    what: CloudObjectKind
    name: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class CloudOperationContext:
    """What is the same for every step of a run."""

    run: str
    cloud: str
    """By the name that clouds.yaml has for it."""
    calls: connection.Calls
    ledger: Ledger
    content: Path | bytes


class CloudOperations:
    """A sequence on one connection. `things`: what an earlier one has made; what this one makes is added."""

    def __init__(
        self,
        cloud: connection.UserCloud,
        making: CloudOperationContext,
        things: dict[CloudObjectKind, CloudObject],
        round_: int | None = None,
    ) -> None:
        self._cloud, self._making, self._round, self._things = cloud, making, round_, things

    def close(self) -> None:
        """Nothing more is asked; a call that goes on ends with the request that it is at."""
        self._cloud.close()

    async def lacks(self, operation: CloudOperation) -> str | None:
        """Why the cloud cannot have such a thing at all. RetryLater, GiveUp when it does not say."""
        asked = partial(self._cloud.lacks, operation.what)
        return await self._making.calls.call(asked, operation.deadline_ms / 1000)

    async def do(self, operation: CloudOperation) -> ServiceAnswer:
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
                    return ServiceAnswer(True, f"{found} in the list")
                case _:
                    assert_never(operation.does)
        except HomeostatError as error:
            return ServiceAnswer(False, str(error))

    async def _call(self, act: Callable[[float], T], end_s: float) -> T:
        return await self._making.calls.call(act, end_s - time.monotonic())

    def _thing(self, what: CloudObjectKind) -> tuple[CloudObject, str]:
        """With its id. GiveUp when an earlier step did not make it."""
        thing = self._things.get(what)
        if thing is None or thing.id is None:
            raise GiveUp(f"there is no {what} of this run: it was not made")
        return thing, thing.id

    async def _create(self, operation: CloudOperation, end_s: float) -> ServiceAnswer:
        making, what = self._making, operation.what
        thing = CloudObject(what, name_of(making.run, what, self._round))
        described = f"drill {making.run} of homeostat; deleted after it"
        wanted = connection.CloudObjectRequest(what, thing.name, described)
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
        return ServiceAnswer(True, f"{thing.name} is {id}")

    async def _active(self, thing: CloudObject, id: str, end_s: float) -> ServiceAnswer:
        while True:
            state = await self._call(partial(self._cloud.state, thing.what, id), end_s)
            seen = state.word + (f": {state.fault}" if state.fault else "")
            if state.reached != "not yet":
                return ServiceAnswer(state.reached == "active", seen)
            if not await _pause(end_s):
                return ServiceAnswer(False, f"still {seen}")

    async def _there(self, thing: CloudObject, id: str, end_s: float) -> ServiceAnswer:
        """This very one is in the list, by its name and its id."""
        while True:
            if id in await self._call(partial(self._cloud.ids, thing.what, thing.name), end_s):
                return ServiceAnswer(True, f"{thing.name} is in the list")
            if not await _pause(end_s):
                return ServiceAnswer(False, f"{thing.name} is not in the list")

    async def _delete(self, thing: CloudObject, id: str, end_s: float) -> ServiceAnswer:
        await self._call(partial(self._cloud.delete, thing.what, id), end_s)
        return ServiceAnswer(True, f"deletion of {thing.name} is accepted")

    async def _gone(self, thing: CloudObject, _: str, end_s: float) -> ServiceAnswer:
        """Nothing of its name is in the list: deletion is only begun when it is accepted."""
        while True:
            if not await self._call(partial(self._cloud.ids, thing.what, thing.name), end_s):
                self._making.ledger.gone(thing.what, thing.name)
                del self._things[thing.what]
                return ServiceAnswer(True, f"{thing.name} is not in the list")
            if not await _pause(end_s):
                return ServiceAnswer(False, f"{thing.name} is still in the list")


async def _pause(end_s: float) -> bool:
    """Until the next look; False when there is no time for one."""
    if time.monotonic() + LOOK_S >= end_s:
        return False
    await asyncio.sleep(LOOK_S)
    return True


CANARY_EVERY_S = 0.5
_OPENED_WITHIN_S = 60.0
"""The library of a cloud is read from a cold disk once."""
_ENDED_WITHIN_S = connection.SILENCE_S + 5.0


class OperationRunner:
    """Carries out operations and notes each. One for a run."""

    def __init__(self, parts: RunDependencies, drill: Drill, victim: str, run: str) -> None:
        self._parts, self._drill, self._victim, self._run = parts, drill, victim, run
        self._calls = connection.Calls()
        self._things: dict[CloudObjectKind, CloudObject] = {}

    async def before(self, book: RunRecorder, ledger: Ledger) -> None:
        """The set-up; NotBegun when a part of it fails. What all of them need is looked at first."""
        operations = self._drill.operations
        if any(isinstance(each, CloudOperation) for each in operations.all):
            self._parts.progress.say("making ready for the operations on the cloud")
            try:
                (await self._steps(_PhaseTasks("before", book, ledger))).close()
            except HomeostatError as error:
                raise NotBegun("operations", str(error)) from None
        going = _PhaseTasks("before", book, ledger)
        failed = await self._sequence(going, operations.before)
        self._things = going.things
        if failed is not None:
            raise NotBegun("operations before the fault", failed)

    async def canary(self, book: RunRecorder, ledger: Ledger) -> None:
        """Those of `during`, round and round, until cancelled."""
        round_ = 0
        while self._drill.operations.during:
            round_ += 1
            going = _PhaseTasks("during", book, ledger, round_, dict(self._things))
            await self._sequence(going, self._drill.operations.during)
            await asyncio.sleep(CANARY_EVERY_S)

    async def while_held(self, book: RunRecorder, ledger: Ledger) -> None:
        """Those of `while_held`, in order; the first that fails is the last. `after` has what they made."""
        going = _PhaseTasks("while_held", book, ledger, things=self._things)
        await self._sequence(going, self._drill.operations.while_held)

    async def after(self, book: RunRecorder, ledger: Ledger) -> None:
        """Those of `after`, in order; the first that fails is the last, unless it is optional."""
        going = _PhaseTasks("after", book, ledger, things=dict(self._things))
        await self._sequence(going, self._drill.operations.after)

    async def ended(self) -> None:
        """No call goes on: what it asks for would be made after the clean-up has looked for it."""
        if not await self._calls.ended(0.0):
            self._parts.progress.say("a call to the cloud was cut off; waiting for its last request")
            await self._calls.ended(_ENDED_WITHIN_S)

    async def _sequence(self, going: _PhaseTasks, operations: Sequence[Step]) -> str | None:
        """What failed; one that is optional spoils only what is about the same thing."""
        try:
            for operation in operations:
                if isinstance(operation, CloudOperation) and operation.what in going.spoilt:
                    continue
                began_ns = now_ns()
                asked = await self._do(going, operation)
                if isinstance(asked, OperationLeftOut):
                    going.book.note(asked)
                    continue
                done = OperationDone(operation.id, going.phase, began_ns, now_ns(), asked.ok, asked.seen)
                going.book.note(done)
                if not asked.ok and going.over(operation):
                    return f"{operation.id}: {asked.seen}"
        finally:
            going.close()
        return None

    async def _do(self, going: _PhaseTasks, operation: Step) -> ServiceAnswer | OperationLeftOut:
        if isinstance(operation, Operation):
            return await self._ask(operation, going.ledger)
        if going.phase != "during":
            self._parts.progress.say(f"operation {operation.id}: {operation.does} {operation.what}")
        try:
            if going.steps is None:
                going.steps = await self._steps(going)
            if operation.optional and (why := await going.steps.lacks(operation)) is not None:
                going.spoilt.add(operation.what)
                return OperationLeftOut(operation.id, going.phase, why)
        except HomeostatError as error:
            return ServiceAnswer(False, str(error))
        return await going.steps.do(operation)

    async def _steps(self, going: _PhaseTasks) -> CloudOperations:
        """On a connection of its own, as each command of a person has. BadInput when there can be none."""
        cloud = cloud_of(self._parts.site, "the operations")
        making = CloudOperationContext(
            self._run, cloud.name, self._calls, going.ledger, connection.image_of(cloud)
        )
        driver = await self._calls.call(lambda _: connection.open_cloud(cloud), _OPENED_WITHIN_S)
        return CloudOperations(driver, making, going.things, going.round)

    async def _ask(self, operation: Operation, ledger: Ledger) -> ServiceAnswer:
        url = operation_url(self._parts.site, operation, self._victim)
        expected = range(operation.status, operation.status + 1)
        within_s = operation.deadline_ms / 1000
        asked = await self._parts.asker.until(operation.method, url, expected, within_s)
        if asked.made is not None and operation.method in ("POST", "PUT"):
            ledger.made(asked.made)
        return asked


@dataclass(slots=True)
class _PhaseTasks:
    """One phase, or one round of it, while it goes on."""

    phase: Phase
    book: RunRecorder
    ledger: Ledger
    round: int | None = None
    things: dict[CloudObjectKind, CloudObject] = field(default_factory=dict)
    """What is there of this run; the steps add to it."""
    spoilt: set[CloudObjectKind] = field(default_factory=set)
    """Not tried any more."""
    steps: CloudOperations | None = None

    def over(self, failed: Step) -> bool:
        """Whether nothing comes after one that failed."""
        if not isinstance(failed, CloudOperation):
            return self.phase != "during"
        if failed.optional:
            self.spoilt.add(failed.what)
        elif self.phase == "during":
            self.spoilt.update(CLOUD_OBJECT_KINDS)
        return not failed.optional and self.phase != "during"

    def close(self) -> None:
        """A call that was given up goes no further than its request."""
        if self.steps is not None:
            self.steps.close()

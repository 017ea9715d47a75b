"""A user's operations: set-up before the fault, the canary during it, what binds under it and after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from homeostat.drills.cloud_operation import WHATS, CloudOperation, Phase, What
from homeostat.drills.clouds.calls import Calls
from homeostat.drills.clouds.opening import image_of, opened
from homeostat.drills.clouds.port import SILENCE_S
from homeostat.drills.clouds.steps import CloudSteps, Making, Thing
from homeostat.drills.model import Drill, Operation, Step
from homeostat.drills.planning.asking import Asked
from homeostat.drills.planning.preparation import cloud_of, operation_url
from homeostat.drills.records.book import Book, now_ns
from homeostat.drills.records.facts import OperationDone, OperationLeftOut
from homeostat.drills.records.ledger import Ledger
from homeostat.drills.running.ordered import Parts
from homeostat.drills.running.stopping import NotBegun
from homeostat.kernel.errors import HomeostatError

CANARY_EVERY_S = 0.5
_OPENED_WITHIN_S = 60.0
"""The library of a cloud is read from a cold disk once."""
_ENDED_WITHIN_S = SILENCE_S + 5.0


class Operating:
    """Carries out operations and notes each. One for a run."""

    def __init__(self, parts: Parts, drill: Drill, victim: str, run: str) -> None:
        self._parts, self._drill, self._victim, self._run = parts, drill, victim, run
        self._calls = Calls()
        self._things: dict[What, Thing] = {}

    async def before(self, book: Book, ledger: Ledger) -> None:
        """The set-up; NotBegun when a part of it fails. What all of them need is looked at first."""
        operations = self._drill.operations
        if any(isinstance(each, CloudOperation) for each in operations.all):
            self._parts.progress.say("making ready for the operations on the cloud")
            try:
                (await self._steps(_Going("before", book, ledger))).close()
            except HomeostatError as error:
                raise NotBegun("operations", str(error)) from None
        going = _Going("before", book, ledger)
        failed = await self._sequence(going, operations.before)
        self._things = going.things
        if failed is not None:
            raise NotBegun("operations before the fault", failed)

    async def canary(self, book: Book, ledger: Ledger) -> None:
        """Those of `during`, round and round, until cancelled."""
        round_ = 0
        while self._drill.operations.during:
            round_ += 1
            going = _Going("during", book, ledger, round_, dict(self._things))
            await self._sequence(going, self._drill.operations.during)
            await asyncio.sleep(CANARY_EVERY_S)

    async def while_held(self, book: Book, ledger: Ledger) -> None:
        """Those of `while_held`, in order; the first that fails is the last. `after` has what they made."""
        if self._drill.operations.while_held:
            going = _Going("while_held", book, ledger, things=self._things)
            await self._sequence(going, self._drill.operations.while_held)

    async def after(self, book: Book, ledger: Ledger) -> None:
        """Those of `after`, in order; the first that fails is the last, unless it is optional."""
        going = _Going("after", book, ledger, things=dict(self._things))
        await self._sequence(going, self._drill.operations.after)

    async def ended(self) -> None:
        """No call goes on: what it asks for would be made after the clean-up has looked for it."""
        if not await self._calls.ended(0.0):
            self._parts.progress.say("a call to the cloud was cut off; waiting for its last request")
            await self._calls.ended(_ENDED_WITHIN_S)

    async def _sequence(self, going: _Going, operations: Sequence[Step]) -> str | None:
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

    async def _do(self, going: _Going, operation: Step) -> Asked | OperationLeftOut:
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
            return Asked(False, str(error))
        return await going.steps.do(operation)

    async def _steps(self, going: _Going) -> CloudSteps:
        """On a connection of its own, as each command of a person has. BadInput when there can be none."""
        cloud = cloud_of(self._parts.site, "the operations")
        making = Making(self._run, cloud.name, self._calls, going.ledger, image_of(cloud))
        driver = await self._calls.call(lambda _: opened(cloud), _OPENED_WITHIN_S)
        return CloudSteps(driver, making, going.things, going.round)

    async def _ask(self, operation: Operation, ledger: Ledger) -> Asked:
        url = operation_url(self._parts.site, operation, self._victim)
        expected = range(operation.status, operation.status + 1)
        within_s = operation.deadline_ms / 1000
        asked = await self._parts.asker.until(operation.method, url, expected, within_s)
        if asked.made is not None and operation.method in ("POST", "PUT"):
            ledger.made(asked.made)
        return asked


@dataclass(slots=True)
class _Going:
    """One phase, or one round of it, while it goes on."""

    phase: Phase
    book: Book
    ledger: Ledger
    round: int | None = None
    things: dict[What, Thing] = field(default_factory=dict)
    """What is there of this run; the steps add to it."""
    spoilt: set[What] = field(default_factory=set)
    """Not tried any more."""
    steps: CloudSteps | None = None

    def over(self, failed: Step) -> bool:
        """Whether nothing comes after one that failed."""
        if not isinstance(failed, CloudOperation):
            return self.phase != "during"
        if failed.optional:
            self.spoilt.add(failed.what)
        elif self.phase == "during":
            self.spoilt.update(WHATS)
        return not failed.optional and self.phase != "during"

    def close(self) -> None:
        """A call that was given up goes no further than its request."""
        if self.steps is not None:
            self.steps.close()

"""A user's operations: the continuous canary during the fault, the specified sequence after it."""

from __future__ import annotations

import asyncio

from homeostat.drills.asking import Asked, Asker
from homeostat.drills.book import Book, now_ns
from homeostat.drills.facts import OperationDone
from homeostat.drills.ledger import Ledger
from homeostat.drills.model import Drill, Operation, Step
from homeostat.drills.preparation import operation_url
from homeostat.drills.site import Site

CANARY_EVERY_S = 0.5


class Operating:
    """Carries out operations and notes each."""

    def __init__(self, site: Site, drill: Drill, victim: str, asker: Asker) -> None:
        self._site, self._drill, self._victim, self._asker = site, drill, victim, asker

    async def canary(self, book: Book, ledger: Ledger) -> None:
        """Those of `during`, round and round, until cancelled."""
        while self._drill.operations.during:
            for operation in self._drill.operations.during:
                began_ns = now_ns()
                asked = await self._do(operation, ledger)
                book.note(OperationDone(operation.id, "during", began_ns, now_ns(), asked.ok, asked.seen))
            await asyncio.sleep(CANARY_EVERY_S)

    async def after(self, book: Book, ledger: Ledger) -> None:
        """Those of `after`, in order; the first that fails is the last."""
        for operation in self._drill.operations.after:
            began_ns = now_ns()
            asked = await self._do(operation, ledger)
            book.note(OperationDone(operation.id, "after", began_ns, now_ns(), asked.ok, asked.seen))
            if not asked.ok:
                return

    async def _do(self, operation: Step, ledger: Ledger) -> Asked:
        assert isinstance(operation, Operation)
        url = operation_url(self._site, operation, self._victim)
        expected = range(operation.status, operation.status + 1)
        asked = await self._asker.until(operation.method, url, expected, operation.deadline_ms / 1000)
        if asked.made is not None and operation.method in ("POST", "PUT"):
            ledger.made(asked.made)
        return asked

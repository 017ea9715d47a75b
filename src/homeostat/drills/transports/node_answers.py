"""What the node process answers to drills: the verbs of faults and all else that a transport asks, here.

The host's own node.yaml decides what may be broken, and is read again for each question; who asks decides
nothing. A verb is a process of its own and `inject` goes on when we die, as on a machine whose tool is local.
Invariant: no undo overtakes the `inject` that it is for, or it would find nothing to undo.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

from homeostat.drills import node_keeper as keeper
from homeostat.drills.node_settings import read_drilled_node
from homeostat.drills.transports.local import LocalTransport
from homeostat.drills.transports.node_watches import NodeWatches
from homeostat.drills.transports.questions import (
    AskClock,
    AskHeal,
    AskHolds,
    AskRenew,
    AskRestart,
    AskSeen,
    AskStatus,
    AskUnwatch,
    AskVerb,
    AskWatch,
    question_of,
)
from homeostat.kernel.errors import NotAllowed

_LOOK_AGAIN_S = 0.05


class DrillAnswers:
    """Of one node process. `orders` is a folder of our own: what a question that was cut off left, goes."""

    def __init__(self, host: str, config: Path, orders: Path) -> None:
        self._host, self._config, self._orders = host, config, orders
        self._here = LocalTransport(host, config, orders)
        self._watches = NodeWatches(host)
        self._injecting: list[str] = []
        shutil.rmtree(orders, ignore_errors=True)

    async def answer(self, words: Mapping[str, Any]) -> Any:
        """One question. Kernel errors."""
        match asked := question_of(dict(words)):
            case AskVerb():
                return await self._verb(asked)
            case AskRenew():
                return await self._here.renew(asked.fault)
            case AskHeal():
                return await self._here.heal()
            case AskStatus():
                return await self._here.status()
            case AskClock():
                return await self._here.clock_ns()
            case AskHolds():
                self._refuse_unless_on()
                return await self._here.holds(asked.profile, asked.how, asked.endpoint)
            case AskRestart():
                return await self._here.restart(asked.profile, asked.run)
            case AskWatch():
                self._refuse_unless_on()
                return await self._watches.begin(asked.watch, asked.config)
            case AskSeen():
                return self._watches.seen(asked.watch, asked.after)
            case AskUnwatch():
                return self._watches.end(asked.watch)
            case _:
                assert_never(asked)

    async def close(self) -> None:
        """No watch stays."""
        await self._watches.close()

    async def _verb(self, asked: AskVerb) -> Any:
        """Its section. Two tools that ask for the same at once have files of their own."""
        folder = self._orders / uuid.uuid4().hex
        if asked.verb == "undo":
            await self._known_to_the_keeper(asked.fault)
        elif asked.verb == "inject":
            self._injecting.append(asked.fault)
        try:
            record = await LocalTransport(self._host, self._config, folder).verb(asked.verb, asked.record)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if asked.verb == "inject":
                self._injecting.remove(asked.fault)
        return record[asked.verb]

    async def _known_to_the_keeper(self, fault: str) -> None:
        """Until a fault that is being injected here is the keeper's, or is not being injected any more."""
        known = keeper.Folder(read_drilled_node(self._config).keeper)
        while fault in self._injecting:
            if known.ledger(fault).exists() or known.outcome(fault).exists():
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _refuse_unless_on(self) -> None:
        """What is no verb of an injector shows things of this host, too."""
        if not read_drilled_node(self._config).drills.enabled:
            remedy = "its owner writes `enabled: true` there"
            raise NotAllowed(f"{self._host}: drills.enabled is off in its node.yaml; {remedy}")

"""What a delivery stands on, given once by whoever composes it. It holds no state."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from homeostat.kernel.clock import Clock
from homeostat.notices.outcomes import Appends
from homeostat.notices.refill import Recall
from homeostat.notices.subscriptions import Reads, Subscriptions
from homeostat.ports import Transport


@dataclass(frozen=True, slots=True)
class DeliveryParts:
    """What a delivery stands on. `jitter` returns numbers in [0, 1)."""

    appender: Appends
    readers: Reads
    subscriptions: Subscriptions
    transport: Transport
    recall: Recall
    clock: Clock
    jitter: Callable[[], float] = random.random

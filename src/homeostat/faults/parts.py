"""What the fault path stands on, given once by whoever composes it. It holds no state."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from homeostat.contracts.nouns import HostId
from homeostat.faults.herald import Herald
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.settings import FleetSettings
from homeostat.fleet.suspicion import Probed
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.notices.outcomes import Appends


@dataclass(frozen=True, slots=True)
class Parts:
    """What the fault path works with. `own_lag_s` is how late this process's loop has been.

    `probed` is what outside probes say now; a result older than `probe_stale_s` is none. `term_left_s` is how
    long nobody else can lead.
    """

    appender: Appends
    readers: Readers
    bus: Messages
    clock: Clock
    herald: Herald
    faults: FaultsSettings
    fleet: FleetSettings
    epoch: int
    own_lag_s: Callable[[], float]
    probed: Callable[[], Mapping[HostId, Probed]] = dict
    probe_stale_s: float = 1.0
    doctor_log: logging.Logger | None = None
    term_left_s: Callable[[], float] = lambda: math.inf

"""Everything that acts on hosts and guests, in the order in which it is made; all of it asks the one gate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from homeostat.clouds.local import LocalCloud
from homeostat.contracts.nouns import HostId, Mark
from homeostat.faults.aftermath import Aftermath, AftermathParts
from homeostat.faults.loop import FaultPath
from homeostat.faults.marking import Marker, MarkerParts
from homeostat.fleet.arming import Arming
from homeostat.fleet.fencing import driver_of
from homeostat.kernel.clock import Clock
from homeostat.leadership import Store
from homeostat.placing import placing_of
from homeostat.resources.loop import Placing
from homeostat.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Acting:
    """Who may act; who fences, who marks at the cloud, who starts guests elsewhere."""

    arming: Arming
    aftermath: Aftermath
    marker: Marker
    placing: Placing


async def acting_of(settings: ServerSettings, store: Store, path: FaultPath, clock: Clock) -> Acting:
    """Made, and told which rooms are armed; nothing runs yet."""
    epoch = store.leader.epoch
    arming = Arming(store.appender, store.readers, clock, settings.fleet.gate.armed)
    await arming.reload()
    fence = driver_of(settings.fleet.fencing)
    aftermath = Aftermath(AftermathParts(path, arming, fence, settings.fleet, epoch, clock))
    await aftermath.remember(store.readers)
    cloud = LocalCloud(lambda: path.world.topology, partial(_show, path))
    marker = Marker(MarkerParts(path, cloud, aftermath.verdict, settings.faults, epoch, clock))
    return Acting(arming, aftermath, marker, placing_of(path, aftermath, epoch, clock))


async def _show(path: FaultPath, host: HostId, mark: Mark) -> None:
    await path.record(lambda entry: entry.marked(host, mark, LocalCloud.name))

"""The queue of notices in memory: which may be sent now, in which order, within which limits.

No I/O, no clock. A notice is for a *destination*: one endpoint of a subscription, with its own order, limits
and circuit breaker. A *lane* is one fault of one destination: only its first notice is ever sent, so that
`cleared` never overtakes `raised`; the next one waits until the outcome of the first is committed. It also
waits for every earlier notice of the destination that is about one of its own subjects, whatever fault that
belongs to: the end of one fault and the beginning of the next arrive in the order in which they happened. A
destination that fails is a *suspect*: it has one send at a time, after `circuit_after` failures in a row only
probes at the times of its own back-off, and all suspects together get half of the workers, so that the dead
never stand in the way of the living. All times are nanoseconds on one monotonic clock, passed in.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from homeostat.contracts.nouns import FaultId
from homeostat.notices.model import FaultPicture, Notice, parts_of
from homeostat.notices.subject_order import NoticeSubjects, SubjectOrder


@dataclass(frozen=True, slots=True)
class SendLimits:
    """See `NoticesSettings`; `suspects` is how many sends all suspects may have at once."""

    per_subscription: int
    per_place: int
    suspects: int
    circuit_after: int
    waiting: int


@dataclass(frozen=True, slots=True)
class DueNotice:
    """A notice in memory. `picture` is None when nobody can say any more what the fault was.

    `offered_ns` is when it came with others that were committed together; None: with `admitted_ns`.
    `wished_ns` is how long it waits for others by its consumer's own wish.
    """

    notice: Notice
    picture: FaultPicture | None
    admitted_ns: int
    give_up_ns: int
    attempts: int = 0
    offered_ns: int | None = None
    wished_ns: int = 0

    @property
    def key(self) -> str:
        return self.notice.key


@dataclass(slots=True)
class _Lane:
    fault: FaultId
    line: deque[DueNotice] = field(default_factory=deque)
    next_ns: int = 0
    busy: bool = False
    version: int = -1
    aged: str = ""


@dataclass(slots=True)
class _Endpoint:
    name: str
    place: str
    lanes: dict[FaultId, _Lane] = field(default_factory=dict)
    order: SubjectOrder = field(default_factory=SubjectOrder)
    waiting: list[tuple[int, int, int, FaultId]] = field(default_factory=list)
    size: int = 0
    in_flight: int = 0
    failures: int = 0
    proven: bool = False
    probe_ns: int = 0
    version: int = -1


_STALE_MAX = 1024
"""Outdated entries of a queue that are tolerated before it is made anew."""


class SendQueue:
    """The waiting notices of all destinations. Not for two threads."""

    def __init__(self, limits: SendLimits) -> None:
        self._limits = limits
        self._endpoints: dict[str, _Endpoint] = {}
        self._keys: dict[str, FaultId] = {}
        self._turns: list[tuple[int, int, str, int]] = []
        self._ages: list[tuple[int, int, str, FaultId, str]] = []
        self._flights: dict[str, tuple[str, bool]] = {}
        self._flights_by_place: Counter[str] = Counter()
        self._flights_of_suspects = 0
        self._parked_by_place: dict[str, set[str]] = {}
        self._parked_suspects: set[str] = set()
        self._tick = count()
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def waiting(self, destination: str) -> int:
        """How many notices for this destination are here, those in flight included."""
        endpoint = self._endpoints.get(destination)
        return 0 if endpoint is None else endpoint.size

    def suspects(self) -> tuple[str, ...]:
        """The destinations whose last attempt failed and which have something waiting."""
        return tuple(name for name, each in self._endpoints.items() if each.failures and each.size)

    def overdue(self, now_ns: int) -> dict[str, int]:
        """For how long the first notice of each destination is due and not sent; without suspects."""
        return {
            name: now_ns - each.waiting[0][0]
            for name, each in self._endpoints.items()
            if each.waiting and not each.failures and each.waiting[0][0] <= now_ns
        }

    def progress(self) -> tuple[tuple[DueNotice, int], ...]:
        """The notices that were tried in vain, and when each is tried again."""
        return tuple(
            (lane.line[0], max(lane.next_ns, endpoint.probe_ns if self._is_broken(endpoint) else 0))
            for endpoint in self._endpoints.values()
            for lane in endpoint.lanes.values()
            if lane.line and lane.line[0].attempts
        )

    def add(self, due: DueNotice, place: str, not_before_ns: int = 0) -> bool:
        """Take a notice in, behind those of the same destination and fault. False: there is no room."""
        if due.key in self._keys:
            return True
        name = due.notice.destination
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            endpoint = self._endpoints[name] = _Endpoint(name, place)
        if endpoint.size >= self._limits.waiting:
            return False
        endpoint.place = place
        lane = endpoint.lanes.get(due.notice.fault)
        if lane is None:
            lane = endpoint.lanes[due.notice.fault] = _Lane(due.notice.fault)
        lane.line.append(due)
        endpoint.size += 1
        self._keys[due.key] = due.notice.fault
        endpoint.order.enter(due.key, NoticeSubjects.of(due.notice, due.picture))
        if len(lane.line) == 1:
            self._ready(endpoint, lane, not_before_ns)
        return True

    def take(self, now_ns: int) -> DueNotice | None:
        """The next notice to send now; it is in flight until `succeeded`, `failed` or `closing` is called."""
        self._now_ns = max(self._now_ns, now_ns)
        while self._turns and self._turns[0][0] <= now_ns:
            _, _, name, version = heapq.heappop(self._turns)
            endpoint = self._endpoints.get(name)
            if endpoint is None or endpoint.version != version:
                continue
            if self._flights_by_place[endpoint.place] >= self._limits.per_place:
                self._parked_by_place.setdefault(endpoint.place, set()).add(name)
            elif endpoint.failures and self._flights_of_suspects >= self._limits.suspects:
                self._parked_suspects.add(name)
            else:
                return self._start(endpoint)
        return None

    def next_ns(self) -> int | None:
        """When `take` or `expired` has to be asked again, if nothing else happens before."""
        times = [queue[0][0] for queue in (self._turns, self._ages) if queue]
        return min(times, default=None)

    def succeeded(self, due: DueNotice) -> None:
        """The consumer has it: its subscription is alive again and its other notices need not wait."""
        endpoint = self._endpoints[due.notice.destination]
        self._land(endpoint, due)
        broken = self._is_broken(endpoint)
        endpoint.failures, endpoint.proven, endpoint.probe_ns = 0, True, 0
        if broken:
            self._hurry(endpoint)
        self._schedule(endpoint)

    def failed(self, due: DueNotice, next_ns: int) -> None:
        """It did not arrive; it, and a suspect's next probe, wait until `next_ns`."""
        endpoint = self._endpoints[due.notice.destination]
        self._land(endpoint, due)
        endpoint.failures += 1
        endpoint.proven = False
        endpoint.probe_ns = next_ns
        lane = endpoint.lanes[due.notice.fault]
        lane.line[0] = replace(due, attempts=due.attempts + 1)
        lane.busy = False
        self._ready(endpoint, lane, next_ns)

    def take_along(
        self, lead: DueNotice, wanted: Callable[[DueNotice], bool], most: int, look_max: int | None = None
    ) -> tuple[DueNotice, ...]:
        """At most so many of the same destination travel with `lead`, just taken; in the order of time.

        `wanted` is asked of the first notice of every other lane, whenever it would be due; with `look_max`
        of so many at most. What comes along
        has no send of its own: after the lead's end it needs `failed_along`, or `closed` as the lead does.
        """
        endpoint = self._endpoints[lead.notice.destination]
        found: list[DueNotice] = []
        endpoint.waiting.sort()  # still a heap; the next time it is nearly sorted
        for _, _, version, fault in endpoint.waiting[:look_max]:
            if len(found) >= most:
                break
            lane = endpoint.lanes.get(fault)
            if lane is None or lane.version != version or lane.busy or not wanted(lane.line[0]):
                continue
            lane.busy = True
            found.append(lane.line[0])
        if found:
            self._schedule(endpoint)
        return tuple(found)

    def failed_along(self, due: DueNotice, next_ns: int) -> None:
        endpoint = self._endpoints[due.notice.destination]
        lane = endpoint.lanes[due.notice.fault]
        lane.line[0] = replace(due, attempts=due.attempts + 1)
        lane.busy = False
        self._ready(endpoint, lane, next_ns)

    def closing(self, due: DueNotice) -> None:
        """It ended without a word about the consumer: given up. Its lane waits for `closed`."""
        endpoint = self._endpoints[due.notice.destination]
        self._land(endpoint, due)
        self._schedule(endpoint)

    def closed(self, due: DueNotice) -> None:
        """Its outcome is committed: forget it, let the next one of its lane go."""
        endpoint = self._endpoints[due.notice.destination]
        lane = endpoint.lanes[due.notice.fault]
        lane.line.popleft()
        lane.busy = False
        endpoint.size -= 1
        self._keys.pop(due.key, None)
        for key in endpoint.order.leave(due.key):
            freed = endpoint.lanes[self._keys[key]]
            if freed is not lane and freed.line[0].key == key:
                self._ready(endpoint, freed, freed.next_ns)
        if lane.line:
            self._ready(endpoint, lane, 0)
            return
        del endpoint.lanes[lane.fault]
        self._schedule(endpoint)

    def expired(self, now_ns: int) -> tuple[DueNotice, ...]:
        """The notices that are too old and not in flight. Each waits for `closed` from now on."""
        found = []
        while self._ages and self._ages[0][0] <= now_ns:
            _, _, name, fault, key = heapq.heappop(self._ages)
            endpoint = self._endpoints.get(name)
            lane = None if endpoint is None else endpoint.lanes.get(fault)
            if endpoint is None or lane is None or lane.line[0].key != key:
                continue
            if lane.busy:
                lane.aged = ""  # in flight; if it fails it is known to be too old at once
                continue
            lane.busy = True
            found.append(lane.line[0])
            self._schedule(endpoint)
        return tuple(found)

    def release(self, subscription: str) -> None:
        """All of this subscription's notices may go now: it was removed or changed."""
        for name, endpoint in self._endpoints.items():
            if parts_of(name)[0] == subscription:
                endpoint.failures, endpoint.probe_ns = 0, 0
                self._hurry(endpoint)
                self._schedule(endpoint)

    def _is_broken(self, endpoint: _Endpoint) -> bool:
        """The circuit is open: only probes go."""
        return endpoint.failures >= self._limits.circuit_after

    def _start(self, endpoint: _Endpoint) -> DueNotice:
        lane = endpoint.lanes[heapq.heappop(endpoint.waiting)[3]]
        lane.busy = True
        due = lane.line[0]
        suspect = endpoint.failures > 0
        self._flights[due.key] = (endpoint.place, suspect)
        self._flights_by_place[endpoint.place] += 1
        self._flights_of_suspects += suspect
        endpoint.in_flight += 1
        self._schedule(endpoint)
        return due

    def _land(self, endpoint: _Endpoint, due: DueNotice) -> None:
        """Give back what the flight held, and let those try again that waited for just that."""
        place, suspect = self._flights.pop(due.key)
        endpoint.in_flight -= 1
        self._flights_of_suspects -= suspect
        self._flights_by_place[place] -= 1
        if not self._flights_by_place[place]:
            del self._flights_by_place[place]
        freed = self._parked_by_place.pop(place, set())
        if suspect:
            freed |= self._parked_suspects
            self._parked_suspects = set()
        for name in sorted(freed):
            self._schedule(self._endpoints[name])

    def _ready(self, endpoint: _Endpoint, lane: _Lane, at_ns: int) -> None:
        """The lane's first notice may be sent at `at_ns`, or when what it waits for has ended."""
        if lane.line[0].key in endpoint.order.waits:
            lane.next_ns = at_ns
            return
        # Never before now: who may go at once must not overtake who was due a while ago.
        lane.next_ns, lane.version = max(at_ns, self._now_ns), next(self._tick)
        due = lane.line[0]
        heapq.heappush(endpoint.waiting, (lane.next_ns, lane.version, lane.version, lane.fault))
        if lane.aged != due.key:
            lane.aged = due.key
            heapq.heappush(self._ages, (due.give_up_ns, lane.version, endpoint.name, lane.fault, due.key))
            if len(self._ages) > 2 * len(self._keys) + _STALE_MAX:
                self._ages = [entry for entry in self._ages if entry[4] in self._keys]
                heapq.heapify(self._ages)
        self._schedule(endpoint)

    def _hurry(self, endpoint: _Endpoint) -> None:
        order = sorted(endpoint.waiting)
        endpoint.waiting = []
        for _, _, version, fault in order:
            lane = endpoint.lanes.get(fault)
            if lane is not None and lane.version == version and not lane.busy:
                lane.next_ns = self._now_ns
                heapq.heappush(endpoint.waiting, (lane.next_ns, next(self._tick), version, fault))

    def _schedule(self, endpoint: _Endpoint) -> None:
        """Give the endpoint its turn at the moment when it can next send something."""
        endpoint.version = next(self._tick)
        while endpoint.waiting:
            _, _, version, fault = endpoint.waiting[0]
            lane = endpoint.lanes.get(fault)
            if lane is not None and lane.version == version and not lane.busy:
                break
            heapq.heappop(endpoint.waiting)
        alone = endpoint.failures > 0 or not endpoint.proven
        limit = 1 if alone else self._limits.per_subscription
        if not endpoint.waiting or endpoint.in_flight >= limit:
            return
        broken = self._is_broken(endpoint)
        at_ns = max(endpoint.probe_ns if broken else endpoint.waiting[0][0], self._now_ns)
        heapq.heappush(self._turns, (at_ns, endpoint.version, endpoint.name, endpoint.version))
        if len(self._turns) > 4 * len(self._endpoints) + _STALE_MAX:
            self._turns = [each for each in self._turns if self._endpoints[each[2]].version == each[3]]
            heapq.heapify(self._turns)

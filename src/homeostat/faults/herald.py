"""Between the fault path and those who tell people: pictures of faults, and who heard that one was raised.

What is queued here is written in the fault path's own entry; telling starts only after its commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from homeostat.contracts.nouns import FaultId
from homeostat.faults.affected import read
from homeostat.faults.decision import Telling
from homeostat.faults.model import Fault
from homeostat.faults.store import load
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import Change, Draft, Receipt
from homeostat.notices import store as notice_store
from homeostat.notices.delivery import Delivery
from homeostat.notices.matching import concerned
from homeostat.notices.model import FaultPicture, Notice, Transition
from homeostat.notices.outbox import Cause, queue, settled
from homeostat.notices.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an entry must write so that people are told, and what to tell after its commit."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]
    notices: tuple[Notice, ...]
    pictures: Mapping[FaultId, FaultPicture]


def picture_of(fault: Fault) -> FaultPicture:
    """All that a notice says about a fault."""
    return FaultPicture(
        id=fault.id,
        kind=fault.kind,
        severity=fault.severity,
        about=fault.about,
        owner=fault.owner,
        reason=fault.reason,
        raised_ns=fault.raised_ns,
        affected=read(fault.affected),
        cleared_ns=fault.cleared_ns,
        cleared_reason=fault.cleared_reason,
        outage_ms=fault.outage_ms,
    )


async def recall(readers: Readers, faults: Sequence[FaultId]) -> Mapping[FaultId, FaultPicture]:
    """Pictures read again from the tables: after a restart, and for notices that did not fit into memory."""
    return {fault.id: picture_of(fault) for fault in await readers.read(lambda conn: load(conn, faults))}


class Herald:
    """Used by the fault path, one entry at a time."""

    def __init__(self, subscriptions: Subscriptions, delivery: Delivery, readers: Readers) -> None:
        self._subscriptions, self._delivery, self._readers = subscriptions, delivery, readers
        self._heard: dict[FaultId, frozenset[str]] = {}

    async def remember(self, faults: Iterable[FaultId]) -> None:
        """Who heard that these open faults were raised, from the outbox.

        An entry whose commit had no answer may be in the database: then its notices are nowhere else.
        """
        wanted = tuple(faults)
        self._heard = dict(await self._readers.read(lambda conn: notice_store.heard(conn, wanted)))
        self._delivery.catch_up(await self._readers.read(notice_store.with_pending))

    def announce(self, tellings: Sequence[Telling], first_index: int) -> Announcement:
        """Whom to tell. The drafts will stand from `first_index` on in the entry's submission."""
        drafts: list[Draft] = []
        changes: list[Change] = []
        notices: list[Notice] = []
        pictures: dict[FaultId, FaultPicture] = {}
        for telling in tellings:
            fault, transition = telling.fault, Transition(telling.transition)
            pictures[fault.id] = picture_of(fault)
            cause = Cause(telling.cause, first_index + len(drafts), telling.at_ns, fault.trace)
            heard = self._heard.get(fault.id, frozenset()) if transition is Transition.CLEARED else None
            candidates = self._subscriptions.that_may_hear(concerned(pictures[fault.id]))
            queued = queue(pictures[fault.id], transition, candidates, cause, heard)
            if transition is Transition.RAISED:
                self._heard[fault.id] = frozenset(each.subscription for each in queued.notices)
            else:
                self._heard.pop(fault.id, None)
            drafts += queued.drafts
            changes += queued.changes
            notices += queued.notices
        return Announcement(tuple(drafts), tuple(changes), tuple(notices), pictures)

    def tell(self, announcement: Announcement, receipt: Receipt) -> None:
        """The entry is committed: start telling."""
        if announcement.notices:
            self._delivery.offer(settled(announcement.notices, receipt), announcement.pictures)

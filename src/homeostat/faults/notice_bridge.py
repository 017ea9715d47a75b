"""The bridge from faults to notices: describes a fault for its notices and queues them in the fault's own
entry.

It remembers who was notified that a fault was raised, so that the same consumers hear that it is cleared.
What is queued here is written in the same transaction as the fault; delivery starts only after its commit.
Which drill a fault belongs to is asked for every fault (`run_of`), so that answer must be in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from homeostat.contracts.faults import Fault, FaultState
from homeostat.contracts.nouns import INFRASTRUCTURE, FaultId
from homeostat.faults.guest_recovery import NOBODY, decode_restored
from homeostat.faults.model import NO_AFFECTED, NO_SUBJECTS, decode_affected, subjects_of
from homeostat.faults.store import load
from homeostat.ingest.entry import EntryNews, EntryNotices, PendingNotice
from homeostat.kernel.database import Readers
from homeostat.kernel.journal import EventIndex, NewEvent, Receipt, RowChange
from homeostat.notices import outbox
from homeostat.notices import store as notice_store
from homeostat.notices.delivery import Delivery
from homeostat.notices.matching import NOTIFIED_REASONS, concerned_owners, decide_raised
from homeostat.notices.model import (
    FaultPicture,
    Notice,
    NoticeState,
    NoticeTransition,
    Silence,
    Subscription,
    parts_of,
)
from homeostat.notices.subscriptions import Silences, SubscriptionChange, Subscriptions
from homeostat.ports import DrillTags


class NoDrillTags:
    """Nothing is broken on purpose."""

    def run_of(self, *_: object) -> str:
        """No drill's."""
        return ""

    async def reload(self) -> None:
        """Nothing to read."""


LOOK_AGAIN_NS = 10**9
"""Seconds between two looks for silences that are over, while nobody changes any."""
LOOKED_MAX, OWED_MAX = 200, 100
"""Faults that are looked at and notices that are told for one entry: the end of a great silence must not
keep the news of a new fault waiting."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an entry must write so that people are told, and what to tell after its commit.

    `notices` that are `silenced` are not told.
    """

    drafts: tuple[NewEvent, ...]
    changes: tuple[RowChange, ...]
    notices: tuple[Notice, ...]
    pictures: Mapping[FaultId, FaultPicture]
    enrolments: tuple[SubscriptionChange, ...] = ()


NO_DRILL_TAGS = NoDrillTags()


def picture_of(fault: Fault, tags: DrillTags = NO_DRILL_TAGS) -> FaultPicture:
    """All that a notice says about a fault; without `tags`, not whether a drill is to blame."""
    return FaultPicture(
        id=fault.id,
        kind=fault.kind,
        severity=fault.severity,
        about=fault.about,
        owner=fault.owner,
        reason=fault.reason,
        raised_ns=fault.raised_ns,
        affected=decode_affected(fault.affected),
        cleared_ns=fault.cleared_ns,
        cleared_reason=fault.cleared_reason,
        outage_ms=fault.outage_ms,
        outage_lower_ms=fault.outage_lower_ms,
        superseded_by=fault.superseded_by,
        remaining=NO_SUBJECTS if fault.remaining == NO_AFFECTED else subjects_of(fault.remaining),
        restored=NOBODY if fault.restored == NO_AFFECTED else decode_restored(fault.restored),
        host=fault.host,
        drill=tags.run_of(fault.about, fault.host, fault.owner, fault.raised_seq),
    )


NO_ANNOUNCEMENT = Announcement((), (), (), {})


async def load_pictures(
    readers: Readers, tags: DrillTags, faults: Sequence[FaultId]
) -> Mapping[FaultId, FaultPicture]:
    """Pictures read again from the tables: after a restart, and for notices that did not fit into memory."""
    found = await readers.read(lambda conn: load(conn, faults))
    return {fault.id: picture_of(fault, tags) for fault in found}


class NoticeBridge:
    """Used by the write path, one entry at a time."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        delivery: Delivery,
        readers: Readers,
        silences: Silences | None = None,
        tags: DrillTags = NO_DRILL_TAGS,
    ) -> None:
        """Without `silences` there are none, without `tags` no drills."""
        self._subscriptions, self._delivery, self._readers = subscriptions, delivery, readers
        self._silences, self._tags = silences or Silences(readers), tags
        self._heard: dict[FaultId, frozenset[str]] = {}
        self._held: dict[FaultId, tuple[Notice, ...]] = {}
        self._looked = (-1, 0)
        self._to_look: deque[FaultId] = deque()

    async def remember(self, faults: Iterable[FaultId]) -> None:
        """Who heard that these open faults were raised, and who did not for a silence, from the outbox.

        An entry whose commit had no answer may be in the database: then its notices are nowhere else.
        """
        wanted = tuple(faults)
        await self._subscriptions.reload()
        await self._silences.reload()
        await self._tags.reload()
        self._heard = dict(
            await self._readers.read(lambda conn: notice_store.notified_destinations(conn, wanted))
        )
        self._held = dict(await self._readers.read(lambda conn: notice_store.held_notices(conn, wanted)))
        self._looked = (-1, 0)
        self._to_look.clear()
        self._delivery.catch_up(await self._readers.read(notice_store.with_pending))

    def prepare(self, news: EntryNews) -> EntryNotices:
        """`ingest.entry.NoticeWriter`: all that one entry must write, and what is done after it."""
        told = self.announce(news.tellings, news.first_index)
        if news.enrolments:
            changed = [
                (each, place) for each, place in news.enrolments if isinstance(each, SubscriptionChange)
            ]
            told = self.enrol(told, changed, news.faults, news.first_index)
        owed = self.owed(news.faults, news.wall_ns, news.first_index + len(told.drafts))

        def committed(receipt: Receipt) -> None:
            self.tell(told, receipt)
            self.tell(owed, receipt)

        return EntryNotices(told.drafts + owed.drafts, told.changes + owed.changes, committed)

    def announce(self, tellings: Sequence[PendingNotice], first_index: int) -> Announcement:
        """Whom to tell. The drafts will stand from `first_index` on in the entry's submission."""
        drafts: list[NewEvent] = []
        changes: list[RowChange] = []
        notices: list[Notice] = []
        pictures: dict[FaultId, FaultPicture] = {}
        for telling in tellings:
            fault, transition = telling.fault, NoticeTransition(telling.transition)
            pictures[fault.id] = picture = picture_of(fault, self._tags)
            cause = outbox.NoticeCause(telling.cause, first_index + len(drafts), telling.at_ns, fault.trace)
            everybody = self._subscriptions.that_may_hear(concerned_owners(picture))
            if transition is NoticeTransition.RAISED:
                queued = self._raised(picture, everybody, cause, telling)
                self._heard[fault.id] = _who_hears(queued)
            elif transition is NoticeTransition.RECOVERED:
                mine = [each for each in everybody if each.owner == telling.project]
                cause = replace(cause, part=telling.part)
                queued = outbox.queue(picture, transition, mine, cause, self._who_heard(fault.id))
            else:
                heard = self._still_awaiting(picture, self._heard.pop(fault.id, frozenset()))
                self._held.pop(fault.id, None)
                queued = outbox.queue(picture, transition, everybody, cause, heard)
            drafts += queued.drafts
            changes += queued.changes
            notices += queued.notices
        return Announcement(tuple(drafts), tuple(changes), tuple(notices), pictures)

    def _still_awaiting(self, picture: FaultPicture, heard: frozenset[str]) -> frozenset[str]:
        """Who has not heard of the end yet: not who was told that all of its guests run elsewhere."""
        if not picture.restored:
            return heard
        rows = {each: self._subscriptions.find(parts_of(each)[0]) for each in heard}
        return frozenset(
            each
            for each, row in rows.items()
            if row is None or row.owner == INFRASTRUCTURE or not picture.is_recovered(row.owner)
        )

    def _raised(
        self,
        picture: FaultPicture,
        everybody: Sequence[Subscription],
        cause: outbox.NoticeCause,
        telling: PendingNotice,
    ) -> outbox.QueuedNotices:
        """Who asks for it and is not silenced; and who heard of a fault whose place it takes, in any case."""
        before: frozenset[str] = frozenset().union(*map(self._who_heard, telling.follows))
        queued = outbox.queue(picture, NoticeTransition.RAISED, everybody, cause)
        if not before:
            return self._hushed(queued, self._subscriptions.find, {picture.id: picture}, telling.at_ns)
        asked = {each.destination for each in queued.notices}
        queued = self._hushed(
            queued, self._subscriptions.find, {picture.id: picture}, telling.at_ns, spared=before
        )
        place = replace(cause, first_index=cause.first_index + len(queued.drafts))
        more = outbox.queue(picture, NoticeTransition.RAISED, everybody, place, before - asked)
        return outbox.QueuedNotices(
            queued.drafts + more.drafts, queued.changes + more.changes, queued.notices + more.notices
        )

    def _hushed(
        self,
        queued: outbox.QueuedNotices,
        find: outbox.SubscriptionLookup,
        pictures: Mapping[FaultId, FaultPicture],
        now_ns: int,
        spared: frozenset[str] = frozenset(),
    ) -> outbox.QueuedNotices:
        """The same, with what silences keep back now written down as such; nothing of who is `spared`."""
        if not self._silences.all():
            return queued
        keeping: dict[str, Silence] = {}
        for each in queued.notices:
            subscription = find(each.subscription)
            if subscription is not None and each.destination not in spared:
                found = self._silences.covering([subscription], pictures[each.fault], now_ns)
                keeping |= {each.key: silence for silence in found.values()}  # noqa: B035 - at most one
        return outbox.apply_silences(queued, keeping)

    def owed(self, faults: Iterable[Fault], now_ns: int, first_index: int) -> Announcement:
        """What silences kept back of these faults, which are not cleared, and keep back no more.

        `now_ns` is the server's wall clock; the drafts will stand from `first_index` on. A fault that is
        being cleared waits: when it clears, nobody has to be told. At most `OWED_MAX` at once; the next
        entry goes on from there.
        """
        if not self._is_due(now_ns):
            return NO_ANNOUNCEMENT
        there = {fault.id: fault for fault in faults}
        drafts: list[NewEvent] = []
        changes: list[RowChange] = []
        notices: list[Notice] = []
        pictures: dict[FaultId, FaultPicture] = {}
        for _ in range(min(LOOKED_MAX, len(self._to_look))):
            fault = there.get(self._to_look.popleft())
            if fault is None or fault.state is not FaultState.OPEN or fault.id not in self._held:
                continue
            picture = picture_of(fault, self._tags)
            free = [each for each in self._held[fault.id] if self._is_free(each, picture, now_ns)]
            free, later = free[: OWED_MAX - len(notices)], free[OWED_MAX - len(notices) :]
            if free:
                queued = outbox.queue_unsilenced(
                    free, self._subscriptions.find, first_index + len(drafts), now_ns
                )
                self._let_go(fault.id, free)
                self._heard[fault.id] = self._who_heard(fault.id) | _who_hears(queued)
                pictures[fault.id] = picture
                drafts += queued.drafts
                changes += queued.changes
                notices += queued.notices
            if later:
                self._to_look.appendleft(fault.id)
            if len(notices) >= OWED_MAX:
                break
        return Announcement(tuple(drafts), tuple(changes), tuple(notices), pictures)

    def _is_due(self, now_ns: int) -> bool:
        """Whether there is anything to look at now. A round that was begun is ended before another begins."""
        version, looked_ns = self._looked
        changed = version != self._silences.version
        if changed or (not self._to_look and not 0 <= now_ns - looked_ns < LOOK_AGAIN_NS):
            self._looked = (self._silences.version, now_ns)
            self._to_look = deque(dict.fromkeys((*self._to_look, *self._held)))  # who waits goes first
        return bool(self._to_look)

    def _let_go(self, fault: FaultId, told: Sequence[Notice]) -> None:
        """These are kept back no more."""
        keys = {each.key for each in told}
        left = tuple(each for each in self._held.pop(fault) if each.key not in keys)
        if left:
            self._held[fault] = left

    def _is_free(self, held: Notice, picture: FaultPicture, now_ns: int) -> bool:
        """Whether this endpoint would be told of the fault now."""
        subscription = self._subscriptions.find(held.subscription)
        if subscription is None or subscription.owner != held.owner:
            return False
        if subscription.endpoint(held.endpoint) is None:
            return False
        if decide_raised(subscription, picture, now_ns) not in NOTIFIED_REASONS:
            return False
        return not self._silences.covering([subscription], picture, now_ns)

    def enrol(
        self,
        told: Announcement,
        enrolments: Iterable[tuple[SubscriptionChange, EventIndex]],
        faults: Iterable[Fault],
        first_index: int,
    ) -> Announcement:
        """What changed subscriptions are to be told of the faults that are open behind this entry.

        They are matched as they were in `told`, and as they become from the next entry on.
        """
        by_age = sorted(faults, key=lambda each: each.raised_ns)
        pictures = [picture_of(each, self._tags) for each in by_age]
        for enrolment, place in enrolments:
            row, draft = enrolment.subscription, enrolment.draft
            told = replace(told, enrolments=(*told.enrolments, enrolment))
            if row is None:
                continue
            enrolment.current = tuple(
                each for each in pictures if decide_raised(row, each, draft.at_ns) in NOTIFIED_REASONS
            )
            cause = outbox.NoticeCause(place, first_index + len(told.drafts), draft.at_ns, draft.trace)
            queued = outbox.queue_current(enrolment.current, row, cause, self._who_is_known)
            known = {each.id: each for each in enrolment.current}
            queued = self._hushed(queued, {row.name: row}.get, known, draft.at_ns)
            for notice in queued.notices:
                if notice.state is not NoticeState.SILENCED:
                    self._heard[notice.fault] = self._who_heard(notice.fault) | {notice.destination}
            told = Announcement(
                told.drafts + queued.drafts,
                told.changes + queued.changes,
                told.notices + queued.notices,
                {**told.pictures, **{each.id: each for each in enrolment.current}},
                told.enrolments,
            )
        return told

    def _who_heard(self, fault: FaultId) -> frozenset[str]:
        return self._heard.get(fault, frozenset())

    def _who_is_known(self, fault: FaultId) -> frozenset[str]:
        """Who heard of it, and for whom a silence keeps it back: for them there is a row."""
        return self._who_heard(fault) | {each.destination for each in self._held.get(fault, ())}

    def tell(self, announcement: Announcement, receipt: Receipt) -> None:
        """The entry is committed: subscriptions are as it says, and telling starts."""
        for enrolment in announcement.enrolments:
            enrolment.seq = receipt.seqs[-1]
            self._subscriptions.adopt(enrolment.name, enrolment.subscription)
        notices = outbox.with_receipt(announcement.notices, receipt)
        for each in notices:
            if each.state is NoticeState.SILENCED:
                self._held[each.fault] = (*self._held.get(each.fault, ()), each)
        due = [each for each in notices if each.state is not NoticeState.SILENCED]
        if due:
            self._delivery.offer(due, announcement.pictures)


def _who_hears(queued: outbox.QueuedNotices) -> frozenset[str]:
    return frozenset(each.destination for each in queued.notices if each.state is not NoticeState.SILENCED)

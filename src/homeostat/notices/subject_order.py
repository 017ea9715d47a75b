"""The order among the waiting notices of one destination that are about the same thing. Pure.

A fault ends and another one of the same subject begins; a guest's own fault gives way to that of its host.
What a consumer reads last of a subject must be what happened last, so a notice waits until every earlier one
that is about one of its subjects has ended, whatever fault that belongs to. Invariants: a notice waits only
for earlier ones, so that no two wait for each other; notices without a common subject never wait for each
other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homeostat.notices.model import AffectedIndex, FaultPicture, Notice


@dataclass(frozen=True, slots=True)
class NoticeSubjects:
    """What a notice is about: one thing, or a host and what its consumer reads of that suffers with it."""

    first: str
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, notice: Notice, picture: FaultPicture | None) -> NoticeSubjects:
        """Those that the project of the notice may read; of a forgotten fault only the fault."""
        if picture is None:
            return cls(notice.fault)
        seen = picture.affected_of(notice.owner)
        known = seen if isinstance(seen, AffectedIndex) else AffectedIndex(seen)
        return cls(picture.about, known.subjects)


@dataclass(frozen=True, slots=True)
class _Entered:
    """Its place in the order of time, and what it is about."""

    number: int
    about: NoticeSubjects


@dataclass(slots=True)
class SubjectOrder:
    """The notices of one destination that have not ended, by key. `waits` is for which each one waits.

    Of each of its subjects a notice waits for the newest earlier one only: that one waits for those before
    it. A consumer that is gone leaves thousands behind that are about the same, and each waiting for all
    others would need hundreds of megabytes.
    """

    waits: dict[str, set[str]] = field(default_factory=dict)
    _entered: dict[str, _Entered] = field(default_factory=dict)
    _by_first: dict[str, str] = field(default_factory=dict)
    _by_others: dict[frozenset[str], str] = field(default_factory=dict)
    _stops: dict[str, list[str]] = field(default_factory=dict)

    def enter(self, key: str, about: NoticeSubjects) -> None:
        """It comes behind all that are about the same."""
        wide = self._newest_wide(about)
        earlier = set(wide)
        for first in self._firsts(about):
            newest = self._by_first[first]
            number = self._entered[newest].number
            if not any(each.number > number and first in each.about.others for each in wide.values()):
                earlier.add(newest)
        last = next(reversed(self._entered.values()), None)
        self._entered[key] = _Entered(0 if last is None else last.number + 1, about)
        self._by_first[about.first] = key
        if about.others:
            self._by_others.pop(about.others, None)  # so that they stay in the order of time
            self._by_others[about.others] = key
        if earlier:
            self.waits[key] = earlier
            for each in earlier:
                self._stops.setdefault(each, []).append(key)

    def leave(self, key: str) -> tuple[str, ...]:
        """It waited for nothing, and ended. The keys that wait for nothing any more."""
        about = self._entered.pop(key).about
        if self._by_first.get(about.first) == key:
            del self._by_first[about.first]
        if about.others and self._by_others.get(about.others) == key:
            del self._by_others[about.others]
        freed = []
        for later in self._stops.pop(key, ()):
            self.waits[later].discard(key)
            if not self.waits[later]:
                del self.waits[later]
                freed.append(later)
        return tuple(freed)

    def _newest_wide(self, about: NoticeSubjects) -> dict[str, _Entered]:
        """Those that have its subjects among their others: of each subject the newest."""
        found: dict[str, _Entered] = {}
        first_is_left, left = True, about.others
        for others, key in reversed(self._by_others.items()):
            has_first = first_is_left and about.first in others
            if has_first or not left.isdisjoint(others):
                found[key] = self._entered[key]
                first_is_left = first_is_left and not has_first
                left = frozenset() if left is others else left - others
            if not first_is_left and not left:
                break
        return found

    def _firsts(self, about: NoticeSubjects) -> list[str]:
        """Its subjects that are the first one of a notice."""
        known, others = self._by_first, about.others
        if len(known) < len(others):
            return [first for first in known if first == about.first or first in others]
        return [first for first in (about.first, *others) if first in known]

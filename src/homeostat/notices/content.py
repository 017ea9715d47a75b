"""The part of a fault that one project may read, in plain words: what every format of a notice is made from.
Pure.

The same notice has the same content at every attempt and after every restart. What suffers is only what the
subscription's project owns, all of it for `infrastructure`; of a host whose guests run elsewhere only those
that its project was told, with this notice or before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from homeostat.contracts.nouns import INFRASTRUCTURE, Owner
from homeostat.notices import model


@dataclass(frozen=True, slots=True)
class RenderContext:
    """For whom a body is made, and how long it may be (never less than 4 KiB).

    `part` is that of the notice. `public_url` is where people reach the API, empty when nobody said.
    """

    destination: str
    subscription: str
    owner: Owner
    limit_bytes: int
    public_url: str = ""
    part: int = 0


@dataclass(frozen=True, slots=True)
class NoticeContent:
    """One notice in plain words. `affected` has only what the subscription's project may read.

    `is_over`: the fault cleared, and when, why and after how long means something. `drill`: the run that
    broke it on purpose, empty for none.
    """

    key: str
    transition: str
    fault: str
    kind: str
    severity: str
    about: str
    owner: Owner
    reason: str
    raised_ns: int
    affected: tuple[model.Affected, ...] = ()
    is_over: bool = False
    cleared_ns: int | None = None
    cleared_reason: str = ""
    outage_ms: float | None = None
    drill: str = ""
    outage_lower_ms: float | None = None
    superseded_by: str = ""
    remaining: frozenset[str] = frozenset()
    restored: Mapping[str, model.RestoredGuest] = field(default_factory=dict)
    part: int = 0

    @property
    def is_recovered(self) -> bool:
        """Whether everything of its project runs again elsewhere."""
        return self.part > 0 and all(each.subject in self.restored for each in self.affected)

    @property
    def told_now(self) -> dict[str, model.RestoredGuest]:
        """The guests that this notice says to be back."""
        return {subject: guest for subject, guest in self.restored.items() if guest.part == self.part}

    @property
    def is_right(self) -> bool:
        """Whether anything of it is right again; else every word of it still means trouble."""
        if self.part:
            return True
        if not self.is_over or self.superseded_by:
            return False
        subjects = [each.subject for each in self.affected]
        return not subjects or not self.remaining.issuperset(subjects)


def content_of(
    frame: RenderContext, fault: model.FaultPicture, transition: model.NoticeTransition
) -> NoticeContent:
    """What is said of this transition: of a fault that cleared since, `raised` says what it said then."""
    over = transition in (model.NoticeTransition.CLEARED, model.NoticeTransition.SUPERSEDED)
    recovered = transition is model.NoticeTransition.RECOVERED
    restored = {} if transition is model.NoticeTransition.RAISED else _restored(frame, fault)
    return NoticeContent(
        key=model.notice_key(frame.destination, fault.id, transition, frame.part),
        transition=transition.value,
        fault=fault.id,
        kind=fault.kind.value,
        severity=fault.severity.value,
        about=fault.about,
        owner=fault.owner,
        reason=fault.reason,
        raised_ns=fault.raised_ns,
        affected=fault.affected_of(frame.owner),
        is_over=over,
        cleared_ns=fault.cleared_ns if over else None,
        cleared_reason=fault.cleared_reason if over else "",
        outage_ms=fault.outage_ms if over else None,
        outage_lower_ms=fault.outage_lower_ms if over else None,
        superseded_by=fault.superseded_by if over else "",
        remaining=fault.remaining if over else frozenset(),
        restored=restored,
        part=max(1, frame.part) if recovered else 0,
        drill=fault.drill,
    )


def _restored(frame: RenderContext, fault: model.FaultPicture) -> dict[str, model.RestoredGuest]:
    """What its project was told to run elsewhere, with this notice or before; of the end all of it."""
    return {
        subject: guest
        for subject, guest in fault.restored.items()
        if frame.owner in (INFRASTRUCTURE, guest.owner) and (not frame.part or guest.part <= frame.part)
    }


def link_to(frame: RenderContext, said: NoticeContent) -> str:
    """Where the whole fault can be read."""
    return f"{frame.public_url}/api/v1/faults/{said.fault}"

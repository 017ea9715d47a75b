"""What the API of notices takes and answers: bodies, views, and how one becomes the other. No decisions."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from homeostat.contracts.nouns import FaultKind, Severity
from homeostat.kernel.clock import iso
from homeostat.notices import store
from homeostat.notices.model import (
    ENDPOINTS_MAX,
    GROUP_WAIT_MS_MAX,
    Format,
    GroupBy,
    Notice,
    NoticeState,
    Subscription,
)

NAME_PATTERN = r"^[a-z0-9-]{1,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Word = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]
Url = Annotated[str, Field(min_length=1, max_length=2048)]


class EndpointBody(BaseModel):
    """Where to POST, and in which format."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    format: Format = Format.JSON


class SubscriptionBody(BaseModel):
    """What a consumer asks for. Without filters it is told everything of its project.

    `url` is short for one endpoint in our own format. Neither `url` nor `endpoints`: nobody is called, and
    the notices are read from the stream. From `expires_at` on it hears nothing. With `group_by`, notices of
    one group that are due within `group_wait_ms` travel in one POST, to endpoints of our own format.
    """

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    endpoints: list[EndpointBody] = Field(default=[], max_length=ENDPOINTS_MAX)
    secret: Annotated[str, Field(pattern=r"^[!-~]{16,256}$")] | None = None
    key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")] | None = None
    kinds: list[FaultKind] = Field(default=[], max_length=64)
    resources: list[Word] = Field(default=[], max_length=256)
    minimum_severity: Severity | None = None
    expires_at: AwareDatetime | None = None
    group_by: GroupBy = GroupBy.NONE
    group_wait_ms: int = Field(default=0, ge=0, le=GROUP_WAIT_MS_MAX)


class NewSubscriptionBody(SubscriptionBody):
    """The same with the name that it shall have."""

    name: Name


class EndpointView(BaseModel):
    """Where it is told. `number` is in the keys of its notices: of the first one nothing, then `/2`, `/3`."""

    number: int
    url: str
    format: Format


class SubscriptionView(BaseModel):
    """A subscription as it is read. The secret is not in it. `url` is the first endpoint's."""

    name: str
    project: str
    url: str | None
    endpoints: list[EndpointView]
    key_id: str
    kinds: list[FaultKind]
    resources: list[str]
    minimum_severity: Severity | None
    created_at: str
    expires_at: str | None
    expired: bool
    group_by: GroupBy
    group_wait_ms: int


class AffectedTold(BaseModel):
    """What suffers from a fault, as a notice says it."""

    subject: str
    owner: str
    detail: str


class FaultTold(BaseModel):
    """A fault, as a notice `raised` says it."""

    id: str
    kind: FaultKind
    severity: Severity
    about: str
    owner: str
    reason: str
    raised_at: str
    affected: list[AffectedTold]
    affected_count: int


class NoticeTold(BaseModel):
    """The body of a notice `raised`, in our own format. `link` is there when the list was too long."""

    notice: str
    transition: str
    fault: FaultTold
    link: str | None = None


class MadeView(SubscriptionView):
    """The answer to a write. `secret` is there only when it was made here, and only this once.

    `current` is what is wrong now of all that it may hear, at most the newest 100 of `current_count`; every
    endpoint that did not hear of it yet gets it as a notice with that same key. A stream that begins with
    `since` = `seq` tells what happened afterwards. All three are null when nothing was changed.
    """

    secret: str | None = None
    seq: int | None = None
    current_count: int | None = None
    current: list[NoticeTold] | None = None


class SubscriptionList(BaseModel):
    """All that the caller may read, by name."""

    items: list[SubscriptionView]


class TrialView(BaseModel):
    """What one endpoint answered to a test notice. `status` is null when it did not answer."""

    endpoint: int
    url: str
    format: Format
    accepted: bool
    status: int | None
    detail: str
    took_ms: float


class TrialList(BaseModel):
    """Every endpoint, in order."""

    items: list[TrialView]


class NoticeView(BaseModel):
    """A row of the outbox. `seq` is where the journal says that it was queued."""

    key: str
    subscription: str
    endpoint: int
    project: str
    fault: str
    transition: str
    state: NoticeState
    attempts: int
    reason: str
    seq: int
    queued_at: str


class NoticeList(BaseModel):
    """Newest first; `next` is the `before` of the following page, null on the last one."""

    items: list[NoticeView]
    next: int | None


def view_of(row: Subscription, now_ns: int) -> SubscriptionView:
    """A subscription as it is read at `now_ns`."""
    told = [each for each in row.endpoints if each.url]
    return SubscriptionView(
        name=row.name,
        project=row.owner,
        url=told[0].url if told else None,
        endpoints=[EndpointView(number=each.number, url=each.url, format=each.format) for each in told],
        key_id=row.key_id,
        kinds=list(row.kinds),
        resources=list(row.resources),
        minimum_severity=row.minimum_severity,
        created_at=iso(row.created_ns),
        expires_at=None if row.expires_ns is None else iso(row.expires_ns),
        expired=row.is_expired(now_ns),
        group_by=row.group_by,
        group_wait_ms=row.group_wait_ms,
    )


def notice_view(row: Notice) -> NoticeView:
    """A notice as it is read."""
    return NoticeView(
        key=row.key,
        subscription=row.subscription,
        endpoint=row.endpoint,
        project=row.owner,
        fault=row.fault,
        transition=row.transition.value,
        state=row.state,
        attempts=row.attempts,
        reason=row.reason,
        seq=store.seq_of(row),
        queued_at=iso(row.queued_ns),
    )

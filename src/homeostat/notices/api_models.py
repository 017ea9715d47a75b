"""The request and response bodies of the API of notices, and their conversion. No decisions."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field

from homeostat.contracts.nouns import LABEL, OWNER, WORD, FaultKind, Severity
from homeostat.kernel.clock import iso
from homeostat.kernel.http import StrictBody, view_from
from homeostat.notices import model, store

Name = Annotated[str, Field(pattern=LABEL)]
Word = Annotated[str, Field(pattern=WORD)]
Url = Annotated[str, Field(min_length=1, max_length=2048)]


class EndpointBody(StrictBody):
    """Where to POST, and in which format."""

    url: Url
    format: model.NoticeFormat = model.NoticeFormat.JSON


class SubscriptionBody(StrictBody):
    """What a consumer asks for. Without filters it receives everything of its project.

    `url` is short for one endpoint in our own format. Neither `url` nor `endpoints`: nobody is called, and
    the notices are read from the stream. From `expires_at` on it hears nothing. With `group_by`, notices of
    one group that are due within `group_wait_ms` travel in one POST, to endpoints of our own format.
    """

    url: Url | None = None
    endpoints: list[EndpointBody] = Field(default=[], max_length=model.ENDPOINTS_MAX)
    secret: Annotated[str, Field(pattern=r"^[!-~]{16,256}$")] | None = None
    key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    project: Annotated[str, Field(pattern=OWNER)] | None = None
    kinds: list[FaultKind] = Field(default=[], max_length=64)
    resources: list[Word] = Field(default=[], max_length=256)
    minimum_severity: Severity | None = None
    expires_at: AwareDatetime | None = None
    group_by: model.GroupBy = model.GroupBy.NONE
    group_wait_ms: int = Field(default=0, ge=0, le=model.GROUP_WAIT_MS_MAX)


class NewSubscriptionBody(SubscriptionBody):
    """The same with the name that it shall have."""

    name: Name


class EndpointView(BaseModel):
    """The target of notices. `number` is in their keys: of the first one nothing, then `/2`, `/3`."""

    number: int
    url: str
    format: model.NoticeFormat


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
    group_by: model.GroupBy
    group_wait_ms: int


class NoticeAffectedView(BaseModel):
    """What suffers from a fault, as a notice says it."""

    subject: str
    owner: str
    detail: str


class NoticeFaultView(BaseModel):
    """A fault, as a notice `raised` says it."""

    id: str
    kind: FaultKind
    severity: Severity
    about: str
    owner: str
    reason: str
    raised_at: str
    affected: list[NoticeAffectedView]
    affected_count: int


class NoticeBodyView(BaseModel):
    """The body of a notice `raised`, in our own format. `link` is there when the list was too long."""

    notice: str
    transition: str
    fault: NoticeFaultView
    link: str | None = None


class NewSubscriptionView(SubscriptionView):
    """The answer to a write. `secret` is there only when it was made here, and only this once.

    `current` is what is wrong now of all that it may hear, at most the newest 100 of `current_count`; every
    endpoint that did not hear of it yet gets it as a notice with that same key. A stream that begins with
    `since` = `seq` has what happened afterwards. All three are null when nothing was changed.
    """

    secret: str | None = None
    seq: int | None = None
    current_count: int | None = None
    current: list[NoticeBodyView] | None = None


class SubscriptionList(BaseModel):
    """All that the caller may read, by name."""

    items: list[SubscriptionView]


class TestNoticeView(BaseModel):
    """What one endpoint answered to a test notice. `status` is null when it did not answer."""

    endpoint: int
    url: str
    format: model.NoticeFormat
    accepted: bool
    status: int | None
    detail: str
    took_ms: float


class TestNoticeList(BaseModel):
    """Every endpoint, in order."""

    items: list[TestNoticeView]


class NoticeView(BaseModel):
    """A row of the outbox. `seq` is where the journal says that it was queued."""

    key: str
    subscription: str
    endpoint: int
    project: str
    fault: str
    transition: str
    state: model.NoticeState
    attempts: int
    reason: str
    seq: int
    queued_at: str


class NoticeList(BaseModel):
    """Newest first; `next` is the `before` of the following page, null on the last one."""

    items: list[NoticeView]
    next: int | None


def view_of(row: model.Subscription, now_ns: int) -> SubscriptionView:
    """A subscription as it is read at `now_ns`."""
    targets = [each for each in row.endpoints if each.url]
    return view_from(
        SubscriptionView,
        row,
        project=row.owner,
        url=targets[0].url if targets else None,
        endpoints=[view_from(EndpointView, each) for each in targets],
        created_at=iso(row.created_ns),
        expires_at=None if row.expires_ns is None else iso(row.expires_ns),
        expired=row.is_expired(now_ns),
    )


def notice_view(row: model.Notice) -> NoticeView:
    seq = store.seq_of(row)
    return view_from(NoticeView, row, project=row.owner, seq=seq, queued_at=iso(row.queued_ns))

"""What goes to a consumer in one POST, and whether there is anything to say to it any more. No I/O, no clock.

Which notices travel together is `grouping`, how a body is written is `renderers`. Invariants: nothing goes to
a project that may not hear of it, whatever was queued; a notice that is sent again has the same key and the
same body.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeostat.notices import grouping, signing
from homeostat.notices.board import Due
from homeostat.notices.body import Frame
from homeostat.notices.group_rendering import ENVELOPE_BYTES, render_group
from homeostat.notices.matching import may_hear_of
from homeostat.notices.model import Endpoint, FaultPicture, Subscription
from homeostat.notices.renderers import render
from homeostat.notices.schedule import GiveUpReason
from homeostat.notices.settings import NoticesSettings
from homeostat.ports import Post

Whom = tuple[Subscription, Endpoint]


@dataclass(frozen=True, slots=True)
class Parcel:
    """Notices that go out in one POST, and the body of each."""

    whom: Whom
    dues: tuple[Due, ...]
    bodies: tuple[bytes, ...]


def obstacle(
    due: Due, subscription: Subscription | None, now_ns: int
) -> GiveUpReason | tuple[Whom, FaultPicture]:
    """Why there is nothing to send, or to whom and what."""
    if subscription is None:
        return GiveUpReason.SUBSCRIPTION_REMOVED
    if due.picture is None:
        return GiveUpReason.FAULT_FORGOTTEN
    # A name may be taken again by another project while notices of the first one wait.
    if due.notice.owner != subscription.owner or not may_hear_of(subscription, due.picture):
        return GiveUpReason.NOT_YOURS
    if subscription.is_expired(now_ns):
        return GiveUpReason.SUBSCRIPTION_EXPIRED
    endpoint = subscription.endpoint(due.notice.endpoint)
    if endpoint is None:
        return GiveUpReason.ENDPOINT_REMOVED
    return (subscription, endpoint), due.picture


def body_of(due: Due, whom: Whom, picture: FaultPicture, settings: NoticesSettings) -> bytes:
    """What one notice says, with room for the others where notices travel together."""
    subscription, endpoint = whom
    frame = Frame(
        due.notice.destination,
        subscription.name,
        subscription.owner,
        settings.body_bytes_max - (ENVELOPE_BYTES if grouping.is_grouped(*whom) else 0),
        settings.public_url,
    )
    return render(endpoint.format, frame, picture, due.notice.transition)


def post_alone(due: Due, whom: Whom, body: bytes, at_s: int) -> Post:
    """One notice, signed at `at_s` (wall clock), with its key as a header."""
    subscription, endpoint = whom
    headers = signing.headers(subscription.secret, subscription.key_id, at_s, due.key, body)
    return Post(endpoint.url, headers, body)


def post_together(parcel: Parcel, at_s: int) -> Post:
    """Several notices, signed at `at_s` (wall clock); how many there are is a header."""
    subscription, endpoint = parcel.whom
    body = render_group(parcel.bodies)
    headers = signing.headers(subscription.secret, subscription.key_id, at_s, "", body)
    del headers[signing.KEY_HEADER]  # each notice has its own, in the body
    headers[grouping.COUNT_HEADER] = str(len(parcel.dues))
    return Post(endpoint.url, headers, body)

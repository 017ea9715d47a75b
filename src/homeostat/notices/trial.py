"""Trying a subscription out: a signed notice that says that nothing is wrong, sent now and never again.

It does not pass the outbox, is no event, and is not retried: whoever asks waits for the answer. A consumer
handles it as any notice; what tells it apart is a fault of kind `test` about the subscription.
"""

from __future__ import annotations

import uuid

from homeostat.kernel.clock import Clock
from homeostat.notices import signing
from homeostat.notices.body import Frame, Said
from homeostat.notices.model import Endpoint, Subscription, destination
from homeostat.notices.renderers import render_said
from homeostat.ports import Post, Reply, Transport

TRANSITION = "test"
_LIMIT_BYTES = 64 * 1024


async def try_out(
    transport: Transport, clock: Clock, subscription: Subscription, endpoint: Endpoint
) -> Reply:
    """Send one; what the consumer answered. Takes as long as the transport permits."""
    now_ns = clock.wall_ns()
    name = destination(subscription.name, endpoint.number)
    fault = f"t-{uuid.uuid4().hex[:12]}"
    said = Said(
        key=f"{name}:{fault}:{TRANSITION}",
        transition=TRANSITION,
        fault=fault,
        kind=TRANSITION,
        severity="warning",
        about=f"subscription/{subscription.name}",
        owner=subscription.owner,
        reason="somebody tries this subscription out; nothing is wrong",
        raised_ns=now_ns,
    )
    frame = Frame(name, subscription.name, subscription.owner, _LIMIT_BYTES)
    body = render_said(endpoint.format, frame, said)
    headers = signing.headers(subscription.secret, subscription.key_id, now_ns // 10**9, said.key, body)
    return await transport.post(Post(endpoint.url, headers, body))

"""Trying a subscription out: one signed notice that says that nothing is wrong, sent now and never again.

It does not pass the outbox, is no event, and is not retried: whoever asks waits for the answer. A consumer
handles it as any notice; what tells it apart is `"transition": "test"` and a fault about the subscription.
"""

from __future__ import annotations

import uuid

import orjson

from homeostat.kernel.clock import Clock, iso
from homeostat.notices import signing
from homeostat.notices.model import Subscription
from homeostat.ports import Post, Reply, Transport

TRANSITION = "test"


async def try_out(transport: Transport, clock: Clock, subscription: Subscription) -> Reply:
    """Send one; what the consumer answered. Takes as long as the transport permits."""
    now_ns = clock.wall_ns()
    fault = f"t-{uuid.uuid4().hex[:12]}"
    key = f"{subscription.name}:{fault}:{TRANSITION}"
    body = orjson.dumps(
        {
            "notice": key,
            "transition": TRANSITION,
            "fault": {
                "id": fault,
                "kind": TRANSITION,
                "severity": "warning",
                "about": f"subscription/{subscription.name}",
                "owner": subscription.owner,
                "reason": "somebody tries this subscription out; nothing is wrong",
                "raised_at": iso(now_ns),
                "affected": [],
                "affected_count": 0,
            },
        }
    )
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "homeostat",
        signing.KEY_HEADER: key,
        signing.HEADER: signing.sign(subscription.secret, subscription.key_id, now_ns // 10**9, body),
    }
    return await transport.post(Post(subscription.url, headers, body))

"""The body of a notice. Pure; the same notice is the same bytes at every attempt and after every restart.

    {"notice": "<subscription>:<fault>:<transition>", "transition": "raised" | "cleared",
     "fault": {"id", "kind", "severity", "about", "owner", "reason", "raised_at",
               "affected": [{"subject", "owner", "detail"}], "affected_count"},
     and when cleared, in "fault": "cleared_at", "cleared_reason", "outage_ms" (null when not measured)}

Times are ISO 8601 in UTC with microseconds. Only what the subscription's project owns is in `affected`, all
of it for `infrastructure`. A body above the limit has `"affected": []`, the count, and `"link"` to the
whole fault. There is no time of sending in it: that is `t` in the signature.
"""

from __future__ import annotations

from typing import Any

import orjson

from homeostat.kernel.clock import iso
from homeostat.notices.model import FaultPicture, Subscription, Transition, notice_key

_TEXT_LENGTH_MAX = 500


def render(
    subscription: Subscription,
    fault: FaultPicture,
    transition: Transition,
    *,
    limit_bytes: int,
    public_url: str = "",
) -> bytes:
    """The JSON body, at most `limit_bytes` long (which is never less than 4 KiB)."""
    affected = fault.affected_of(subscription.owner)
    told: dict[str, Any] = {
        "id": fault.id,
        "kind": fault.kind.value,
        "severity": fault.severity.value,
        "about": fault.about,
        "owner": fault.owner,
        "reason": fault.reason,
        "raised_at": iso(fault.raised_ns),
        "affected": [
            {"subject": each.subject, "owner": each.owner, "detail": each.detail} for each in affected
        ],
        "affected_count": len(affected),
    }
    if transition is Transition.CLEARED:
        told["cleared_at"] = None if fault.cleared_ns is None else iso(fault.cleared_ns)
        told["cleared_reason"] = fault.cleared_reason
        told["outage_ms"] = fault.outage_ms
    body = {
        "notice": notice_key(subscription.name, fault.id, transition),
        "transition": transition.value,
        "fault": told,
    }
    whole = orjson.dumps(body)
    if len(whole) <= limit_bytes:
        return whole
    for field in ("about", "reason", "cleared_reason"):
        if field in told:
            told[field] = told[field][:_TEXT_LENGTH_MAX]
    return orjson.dumps(
        {**body, "fault": {**told, "affected": []}, "link": f"{public_url}/api/v1/faults/{fault.id}"}
    )

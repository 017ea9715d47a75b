"""The body of a notice. Pure; the same notice is the same bytes at every attempt and after every restart.

Our own format:

    {"notice": "<subscription>:<fault>:<transition>", "transition": "raised" | "cleared",
     "fault": {"id", "kind", "severity", "about", "owner", "reason", "raised_at",
               "affected": [{"subject", "owner", "detail"}], "affected_count"},
     and when cleared, in "fault": "cleared_at", "cleared_reason", "outage_ms" (null when not measured);
     and of a fault that belongs to a drill, in "fault": "drill", the run that broke it on purpose}

Times are ISO 8601 in UTC with microseconds. Only what the subscription's project owns is in `affected`, all
of it for `infrastructure`. A body above the limit has `"affected": []`, the count, and `"link"` to the
whole fault. There is no time of sending in it: that is `t` in the signature. The other formats are in
`doctor` and `alertmanager`.
"""

from __future__ import annotations

from typing import Any, assert_never

import orjson

from homeostat.kernel.clock import iso
from homeostat.notices import alertmanager, doctor
from homeostat.notices.body import Frame, Said, link_to, said_of
from homeostat.notices.model import FaultPicture, Format, Suffering, Transition

_TEXT_LENGTH_MAX = 500


def render(shape: Format, frame: Frame, fault: FaultPicture, transition: Transition) -> bytes:
    """The body of a notice, at most `frame.limit_bytes` long."""
    return render_said(shape, frame, said_of(frame, fault, transition))


def render_said(shape: Format, frame: Frame, said: Said) -> bytes:
    """The same from plain words."""
    match shape:
        case Format.JSON:
            return _json(frame, said)
        case Format.DOCTOR:
            return doctor.render(frame, said)
        case Format.ALERTMANAGER:
            return alertmanager.render(frame, said)
        case _:
            assert_never(shape)


def _json(frame: Frame, said: Said) -> bytes:
    told: dict[str, Any] = {
        "id": said.fault,
        "kind": said.kind,
        "severity": said.severity,
        "about": said.about,
        "owner": said.owner,
        "reason": said.reason,
        "raised_at": iso(said.raised_ns),
        "affected": orjson.Fragment(
            (said.affected if isinstance(said.affected, Suffering) else Suffering(said.affected)).as_json
        ),
        "affected_count": len(said.affected),
    }
    if said.drill:
        told["drill"] = said.drill
    if said.is_over:
        told["cleared_at"] = None if said.cleared_ns is None else iso(said.cleared_ns)
        told["cleared_reason"] = said.cleared_reason
        told["outage_ms"] = said.outage_ms
    body = {"notice": said.key, "transition": said.transition, "fault": told}
    whole = orjson.dumps(body)
    if len(whole) <= frame.limit_bytes:
        return whole
    for field in ("about", "reason", "cleared_reason"):
        if field in told:
            told[field] = told[field][:_TEXT_LENGTH_MAX]
    return orjson.dumps({**body, "fault": {**told, "affected": []}, "link": link_to(frame, said)})

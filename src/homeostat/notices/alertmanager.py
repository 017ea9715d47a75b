"""The body of Prometheus Alertmanager's webhook, version 4, for what already understands that.

One group a fault: `groupLabels` is `{"fault": id}`. Its first alert is the fault, the others are what suffers
from it, as far as the subscription's project may read it; `truncatedAlerts` says how many did not fit.
A fault that belongs to a drill has the label `drill`, the run. `fingerprint` tells alerts apart and is our
own hash. `endsAt` of what is not over is the year 1, as there.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from homeostat.kernel.clock import iso
from homeostat.notices.body import Frame, Said, link_to

_NEVER = "0001-01-01T00:00:00Z"
_ROOM_BYTES = 2048
_TEXT_LENGTH_MAX = 200

Labels = dict[str, str]


def render(frame: Frame, said: Said) -> bytes:
    """The body, at most `frame.limit_bytes` long."""
    whole = orjson.dumps(_body(frame, said, len(said.affected), None))
    if len(whole) <= frame.limit_bytes:
        return whole
    # Subjects have a bounded length; the longest says how many fit for certain.
    longest = max((len(each.subject) + len(each.owner) for each in said.affected), default=0)
    room = _ROOM_BYTES + 2 * longest + 2 * len(frame.public_url)
    shown = min(len(said.affected), max(0, frame.limit_bytes // room - 1))
    return orjson.dumps(_body(frame, said, shown, _TEXT_LENGTH_MAX))


def _body(frame: Frame, said: Said, shown: int, length: int | None) -> dict[str, Any]:
    own = {
        "about": said.about[:length],
        "alertname": said.kind,
        "fault": said.fault,
        "project": said.owner,
        "severity": said.severity,
    }
    if said.drill:
        own["drill"] = said.drill
    labels = [own] + [{**own, "about": each.subject, "project": each.owner} for each in said.affected[:shown]]
    common = {name: value for name, value in own.items() if all(each[name] == value for each in labels)}
    annotations = {"summary": said.reason[:length]}
    if said.is_over:
        annotations["cleared"] = said.cleared_reason[:length]
    status = "resolved" if said.is_over else "firing"
    link = link_to(frame, said)
    return {
        "receiver": frame.subscription,
        "status": status,
        "alerts": [_alert(said, status, each, annotations, link) for each in labels],
        "groupLabels": {"fault": said.fault},
        "commonLabels": common,
        "commonAnnotations": annotations,
        "externalURL": frame.public_url,
        "version": "4",
        "groupKey": f'{{}}:{{fault="{said.fault}"}}',
        "truncatedAlerts": len(said.affected) - shown,
    }


def _alert(said: Said, status: str, labels: Labels, annotations: Labels, link: str) -> dict[str, Any]:
    over = said.is_over and said.cleared_ns is not None
    return {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": iso(said.raised_ns),
        "endsAt": iso(said.cleared_ns) if over and said.cleared_ns is not None else _NEVER,
        "generatorURL": link,
        "fingerprint": hashlib.blake2b(orjson.dumps(labels), digest_size=8).hexdigest(),
    }

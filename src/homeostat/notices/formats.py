"""The formats of a notice's body: our own, Prometheus Alertmanager's and OPNFV Doctor's. Pure.

Every format is made from the part of a fault that one project may read (`content`) and from nothing else, so
the same notice is the same bytes at every attempt and after every restart. There is no time of sending in a
body: that is `t` in the signature.

Our own format:

    {"notice": "<subscription>:<fault>:<transition>", "transition": "raised" | "cleared" | "superseded"
     | "recovered",
     "fault": {"id", "kind", "severity", "about", "owner", "reason", "raised_at",
               "affected": [{"subject", "owner", "detail"}], "affected_count"},
     and when cleared or superseded, in "fault": "cleared_at", "cleared_reason", "outage_lower_ms" and
     "outage_upper_ms" (the bounds of the outage, null where nobody knows), "outage_ms" (the upper one, as
     earlier versions called it), "remaining": the subjects that are still wrong, each with a fault of its
     own; and when superseded, in "fault": "superseded_by", the fault that says from now on that it is wrong;
     and when recovered, in "fault": "recovered": [{"subject", "host", "at", "outage_lower_ms",
     "outage_upper_ms"}], the guests that run again elsewhere, "still_affected": the subjects that do not yet;
     and of a fault that belongs to a drill, in "fault": "drill", the run that broke it on purpose}

Times are ISO 8601 in UTC with microseconds. A body above the limit has `"affected": []`, the count, and
`"link"` to the whole fault. Several notices in one POST are {"notices": [<notice>, ...]}: each is the very
body that it has when it travels alone, with its own key; a consumer drops those whose key it has handled.

Alertmanager's webhook, version 4: one group a fault, `groupLabels` is `{"fault": id}`. Its first alert is the
fault, the others are what suffers from it; `truncatedAlerts` says how many did not fit. A fault that belongs
to a drill has the label `drill`, the run. `fingerprint` distinguishes alerts and is our own hash. `endsAt` of
what is not over is the year 1, as there. A fault that is superseded is resolved with the annotation
`superseded_by`; the alert of that fault fires by then, since it was sent before.

The body that OpenStack Aodh posts when an event alarm fires, as OPNFV Doctor's consumers take it:

    {"severity", "alarm_name", "alarm_id", "previous", "current", "reason",
     "reason_data": {"type": "event", "event": {"message_id", "event_type", "generated", "traits": [...]}}}

A trait is `[name, type, value]`, type 1 a text, 2 a whole number. One body a consumer, fault and transition,
however many guests suffer: trait `instance_id` is the first of them, `instance_ids` all as a JSON list in a
text (as Doctor's maintenance events carry lists), `instance_count` how many. Aodh itself posts once a guest;
consumers that take one guest from a post read `instance_id`, others the list. `state` is `error` or `active`;
a fault that is superseded is told as `error` again, and of a host that is back only what is right there is
told as `active`. A body above the limit has the count and `link` in the place of the list.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, assert_never

import orjson

from homeostat.contracts.nouns import FaultKind
from homeostat.kernel.clock import iso
from homeostat.notices import model
from homeostat.notices.content import NoticeContent, RenderContext, content_of, link_to

RECOVERED_REASON = "it runs again on another host"
_NEVER = "0001-01-01T00:00:00Z"
_RESERVED_BYTES = 2048
_ALERT_TEXT_LENGTH_MAX = 200

Labels = dict[str, str]


def render_alertmanager(frame: RenderContext, said: NoticeContent) -> bytes:
    """The body, at most `frame.limit_bytes` long."""
    whole = orjson.dumps(_alertmanager_body(frame, said, len(said.affected), None))
    if len(whole) <= frame.limit_bytes:
        return whole
    # Subjects have a bounded length; the longest says how many fit for certain.
    longest = max((len(each.subject) + len(each.owner) for each in said.affected), default=0)
    room = _RESERVED_BYTES + 2 * longest + 2 * len(frame.public_url)
    shown = min(len(said.affected), max(0, frame.limit_bytes // room - 1))
    return orjson.dumps(_alertmanager_body(frame, said, shown, _ALERT_TEXT_LENGTH_MAX))


def _alertmanager_body(
    frame: RenderContext, said: NoticeContent, shown: int, length: int | None
) -> dict[str, Any]:
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
        if said.superseded_by:
            annotations["superseded_by"] = said.superseded_by
    status = "resolved" if said.is_over or said.is_recovered else "firing"
    if said.part:
        annotations["recovered"] = ", ".join(
            f"{subject} on {guest.host}" for subject, guest in sorted(said.told_now.items())
        )[:length]
    link = link_to(frame, said)
    return {
        "receiver": frame.subscription,
        "status": status,
        "alerts": [_alertmanager_alert(said, status, each, annotations, link) for each in labels],
        "groupLabels": {"fault": said.fault},
        "commonLabels": common,
        "commonAnnotations": annotations,
        "externalURL": frame.public_url,
        "version": "4",
        "groupKey": f'{{}}:{{fault="{said.fault}"}}',
        "truncatedAlerts": len(said.affected) - shown,
    }


def _alertmanager_alert(
    said: NoticeContent, status: str, labels: Labels, annotations: Labels, link: str
) -> dict[str, Any]:
    guest = said.restored.get(labels["about"])
    ends_ns = said.cleared_ns if said.is_over else None
    if guest is not None:  # it runs elsewhere, whatever becomes of its host
        status, ends_ns = "resolved", guest.at_ns
    elif said.is_recovered:
        ends_ns = max(each.at_ns for each in said.restored.values())
    return {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": iso(said.raised_ns),
        "endsAt": _NEVER if ends_ns is None else iso(ends_ns),
        "generatorURL": link,
        "fingerprint": hashlib.blake2b(orjson.dumps(labels), digest_size=8).hexdigest(),
    }


_TEXT, _WHOLE = 1, 2
_SEVERITIES = {"critical": "critical", "major": "moderate", "minor": "low", "warning": "low"}
"""Aodh knows three."""
_NAMESPACE = uuid.UUID("5f0b6a1e-7c39-5f5c-9a0e-3a8f1f6f2b11")
_DOCTOR_TEXT_LENGTH_MAX = 500

Trait = list[str | int]


def render_doctor(frame: RenderContext, said: NoticeContent) -> bytes:
    """The body, at most `frame.limit_bytes` long."""
    instances = _instances(said)
    whole = orjson.dumps(_doctor_body(frame, said, instances, listed=True))
    if len(whole) <= frame.limit_bytes:
        return whole
    return orjson.dumps(_doctor_body(frame, said, instances, listed=False))


def _doctor_body(
    frame: RenderContext, said: NoticeContent, instances: list[str], *, listed: bool
) -> dict[str, Any]:
    length = None if listed else _DOCTOR_TEXT_LENGTH_MAX
    current = "ok" if said.is_right and (not said.part or said.is_recovered) else "alarm"
    previous = "alarm" if said.is_over or said.part else "ok"
    at_ns = said.cleared_ns if said.is_over and said.cleared_ns is not None else said.raised_ns
    if said.part:
        at_ns = max(guest.at_ns for guest in said.told_now.values())
    traits: list[Trait] = [["state", _TEXT, "active" if said.is_right else "error"]]
    if instances:
        traits.append(["instance_id", _TEXT, instances[0]])
        if listed:
            traits.append(["instance_ids", _TEXT, orjson.dumps(instances).decode()])
        else:
            traits.append(["link", _TEXT, link_to(frame, said)])
    noun, _, name = said.about.partition("/")
    if noun == "node":
        traits.append(["host", _TEXT, name])
    traits += [
        ["instance_count", _WHOLE, len(instances)],
        ["project_id", _TEXT, frame.owner],
        ["fault_id", _TEXT, said.fault],
        ["fault_kind", _TEXT, said.kind],
        ["notice", _TEXT, said.key],
    ]
    return {
        "severity": _SEVERITIES[said.severity],
        "alarm_name": frame.subscription,
        "alarm_id": str(uuid.uuid5(_NAMESPACE, f"subscription/{frame.subscription}")),
        "previous": previous,
        "current": current,
        "reason": (RECOVERED_REASON if said.part else said.cleared_reason if said.is_over else said.reason)[
            :length
        ],
        "reason_data": {
            "type": "event",
            "event": {
                "message_id": str(uuid.uuid5(_NAMESPACE, said.key)),
                "event_type": _event_type(said, instances),
                "generated": iso(at_ns).removesuffix("Z"),
                "traits": traits,
            },
        },
    }


def _instances(said: NoticeContent) -> list[str]:
    subjects = [said.about, *(each.subject for each in said.affected)]
    if said.part:
        subjects = [each for each in subjects if each in said.told_now]
    elif said.is_right:  # what is still wrong is told by its own faults, and what runs elsewhere was told
        subjects = [each for each in subjects if each not in said.remaining and each not in said.restored]
    return [name for noun, _, name in (each.partition("/") for each in subjects) if noun == "resource"]


def _event_type(said: NoticeContent, instances: list[str]) -> str:
    if instances:
        return "compute.instance.update"
    return "compute.host.down" if said.kind == FaultKind.HOST_DOWN.value else f"homeostat.{said.kind}"


_TEXT_LENGTH_MAX = 500


def render(
    shape: model.NoticeFormat,
    frame: RenderContext,
    fault: model.FaultPicture,
    transition: model.NoticeTransition,
) -> bytes:
    """The body of a notice, at most `frame.limit_bytes` long."""
    return render_content(shape, frame, content_of(frame, fault, transition))


def render_content(shape: model.NoticeFormat, frame: RenderContext, said: NoticeContent) -> bytes:
    """The same from plain words."""
    match shape:
        case model.NoticeFormat.JSON:
            return _json(frame, said)
        case model.NoticeFormat.DOCTOR:
            return render_doctor(frame, said)
        case model.NoticeFormat.ALERTMANAGER:
            return render_alertmanager(frame, said)
        case _:
            assert_never(shape)


def _json(frame: RenderContext, said: NoticeContent) -> bytes:
    fault: dict[str, Any] = {
        "id": said.fault,
        "kind": said.kind,
        "severity": said.severity,
        "about": said.about,
        "owner": said.owner,
        "reason": said.reason,
        "raised_at": iso(said.raised_ns),
        "affected": orjson.Fragment(
            (
                said.affected
                if isinstance(said.affected, model.AffectedIndex)
                else model.AffectedIndex(said.affected)
            ).as_json
        ),
        "affected_count": len(said.affected),
    }
    if said.drill:
        fault["drill"] = said.drill
    if said.part:
        fault["recovered"] = [_restored_row(*each) for each in sorted(said.told_now.items())]
        fault["still_affected"] = [it.subject for it in said.affected if it.subject not in said.restored]
    if said.is_over:
        fault["cleared_at"] = None if said.cleared_ns is None else iso(said.cleared_ns)
        fault["cleared_reason"] = said.cleared_reason
        fault["outage_ms"] = said.outage_ms
        fault["outage_lower_ms"], fault["outage_upper_ms"] = said.outage_lower_ms, said.outage_ms
        fault["remaining"] = [it.subject for it in said.affected if it.subject in said.remaining]
        if said.superseded_by:
            fault["superseded_by"] = said.superseded_by
    body = {"notice": said.key, "transition": said.transition, "fault": fault}
    whole = orjson.dumps(body)
    if len(whole) <= frame.limit_bytes:
        return whole
    for field in ("about", "reason", "cleared_reason"):
        if field in fault:
            fault[field] = fault[field][:_TEXT_LENGTH_MAX]
    return orjson.dumps({**body, "fault": {**fault, "affected": []}, "link": link_to(frame, said)})


def _restored_row(subject: str, guest: model.RestoredGuest) -> dict[str, Any]:
    return {
        "subject": subject,
        "host": guest.host,
        "at": iso(guest.at_ns),
        "outage_lower_ms": guest.outage_lower_ms,
        "outage_upper_ms": guest.outage_upper_ms,
    }


_HEAD, _TAIL, _BETWEEN = b'{"notices":[', b"]}", b","
ENVELOPE_BYTES = len(_HEAD) + len(_TAIL)
"""What the envelope adds to a single notice."""


def render_group(bodies: Sequence[bytes]) -> bytes:
    """The body of these notices, each of which is a JSON object, in their order."""
    return _HEAD + _BETWEEN.join(bodies) + _TAIL


def size_of(count: int, content_bytes: int) -> int:
    """How long the body of `count` notices is that are `content_bytes` long together."""
    return ENVELOPE_BYTES + content_bytes + max(0, count - 1) * len(_BETWEEN)

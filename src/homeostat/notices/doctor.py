"""The body that OpenStack Aodh posts when an event alarm fires, as OPNFV Doctor's consumers take it.

    {"severity", "alarm_name", "alarm_id", "previous", "current", "reason",
     "reason_data": {"type": "event", "event": {"message_id", "event_type", "generated", "traits": [...]}}}

A trait is `[name, type, value]`, type 1 a text, 2 a whole number. One body a consumer, fault and transition,
however many guests suffer: trait `instance_id` is the first of them, `instance_ids` all as a JSON list in a
text (as Doctor's maintenance events carry lists), `instance_count` how many. Aodh itself posts once a guest;
consumers that take one guest from a post read `instance_id`, others the list. `state` is `error` or `active`.
A body above the limit has the count and `link` in the place of the list.
"""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from homeostat.contracts.nouns import FaultKind
from homeostat.kernel.clock import iso
from homeostat.notices.body import Frame, Said, link_to

_TEXT, _WHOLE = 1, 2
_SEVERITIES = {"critical": "critical", "major": "moderate", "minor": "low", "warning": "low"}
"""Aodh knows three."""
_NAMESPACE = uuid.UUID("5f0b6a1e-7c39-5f5c-9a0e-3a8f1f6f2b11")
_TEXT_LENGTH_MAX = 500

Trait = list[str | int]


def render(frame: Frame, said: Said) -> bytes:
    """The body, at most `frame.limit_bytes` long."""
    instances = _instances(said)
    whole = orjson.dumps(_body(frame, said, instances, listed=True))
    if len(whole) <= frame.limit_bytes:
        return whole
    return orjson.dumps(_body(frame, said, instances, listed=False))


def _body(frame: Frame, said: Said, instances: list[str], *, listed: bool) -> dict[str, Any]:
    length = None if listed else _TEXT_LENGTH_MAX
    current, previous = ("ok", "alarm") if said.is_over else ("alarm", "ok")
    at_ns = said.cleared_ns if said.is_over and said.cleared_ns is not None else said.raised_ns
    traits: list[Trait] = [["state", _TEXT, "active" if said.is_over else "error"]]
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
        "reason": (said.cleared_reason if said.is_over else said.reason)[:length],
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


def _instances(said: Said) -> list[str]:
    subjects = [said.about, *(each.subject for each in said.affected)]
    return [name for noun, _, name in (each.partition("/") for each in subjects) if noun == "resource"]


def _event_type(said: Said, instances: list[str]) -> str:
    if instances:
        return "compute.instance.update"
    return "compute.host.down" if said.kind == FaultKind.HOST_DOWN.value else f"homeostat.{said.kind}"

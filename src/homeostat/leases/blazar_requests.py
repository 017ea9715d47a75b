"""The requests of Blazar's API v1, read into records of ours.

Pure. What Blazar would ignore (an unknown parameter, an event of another type, a property that shadows a fact
of the host) is refused with its name, as is what it would store and fail on later. Dates are
`YYYY-MM-DD HH:MM` or `now`, in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from homeostat.contracts.nouns import HostId, Owner
from homeostat.kernel.access import Caller
from homeostat.leases.blazar_answers import HOST_FACTS, SIZES
from homeostat.leases.blazar_refusals import (
    BlazarError,
    malformed,
    missing,
    not_updatable,
    unknown,
    unsupported_type,
)
from homeostat.leases.booking import LeaseRequest, ReservationRequest
from homeostat.leases.lease_update import LeaseUpdate, ReservationUpdate
from homeostat.leases.model import Reservation, ReservationId, ResourceType

Body = Mapping[str, Any]

DATE_FORMAT = "%Y-%m-%d %H:%M"
_YEAR_MAX = 2200  # 64 bits of nanoseconds end in 2262
_NAME_MAX = 80
_PROPERTY_NAME_MAX = 64
_INTEGER_MAX = 2**31 - 1
_WORDS_MAX = 16_384

_LEASE = ("name", "start_date", "end_date", "before_end_date", "reservations", "events")
_LEASE_UPDATE = ("name", "start_date", "end_date", "before_end_date", "reservations")
_HOST = ("min", "max", "hypervisor_properties", "resource_properties", "before_end")
_LEAST = dict(zip(SIZES, (1, 1, 1, 0), strict=True))
_INSTANCE = (*SIZES, "affinity", "resource_properties")
_YES = frozenset({"true", "t", "yes", "y", "on", "1"})
_NO = frozenset({"false", "f", "no", "n", "off", "0"})


def read_lease(body: Body, caller: Caller, plugins: Sequence[ResourceType]) -> LeaseRequest:
    """A lease to be created, for the caller's project. BlazarError."""
    _known(body, _LEASE, "a lease")
    if absent := [each for each in ("end_date", "name", "start_date") if each not in body]:
        raise missing(*absent)
    start = body["start_date"]
    before_end = body.get("before_end_date")
    _no_events(body.get("events"))
    return LeaseRequest(
        _name(body["name"]),
        Owner(caller.owner),
        caller.name,
        None if start == "now" else _moment(start),
        _moment(body["end_date"]),
        None if before_end is None else _moment(before_end),
        tuple(_reservation(each, plugins) for each in _objects(body.get("reservations"), "reservations")),
    )


def read_update(body: Body, reservations: Iterable[Reservation], now_ns: int) -> LeaseUpdate:
    """What is to change in a lease that consists of these. BlazarError."""
    _known(body, _LEASE_UPDATE, "a lease that is updated")
    known = {str(each.id): each for each in reservations}
    changes: dict[ReservationId, ReservationUpdate] = {}
    for each in _objects(body.get("reservations"), "reservations"):
        if "id" not in each:
            raise missing("reservation ID")
        found = known.get(each["id"]) if isinstance(each["id"], str) else None
        if found is None:
            raise BlazarError(
                400, f"Please enter valid reservation IDs. Invalid reservation IDs are: {each['id']}"
            )
        if found.id in changes:
            raise malformed("reservations", f"{found.id} is given twice")
        changes[found.id] = _reservation_update(each, found)
    return LeaseUpdate(
        name=None if body.get("name") is None else _name(body["name"]),
        start_ns=_new_moment(body.get("start_date"), now_ns),
        end_ns=_new_moment(body.get("end_date"), now_ns),
        before_end_ns=_new_moment(body.get("before_end_date"), now_ns),
        reservations=changes,
    )


def read_new_host(body: Body) -> tuple[HostId, dict[str, str]]:
    """The name of a host to add, and its extra properties. BlazarError."""
    if "name" not in body:
        raise missing("name")
    name = body["name"]
    if not isinstance(name, str) or not name:
        raise malformed("name", "the name of a host")
    found = read_properties({key: value for key, value in body.items() if key != "name"})
    return HostId(name), {key: value for key, value in found.items() if value is not None}


def read_properties(body: Body) -> dict[str, str | None]:
    """Extra properties of a host; None: it is to lose it. BlazarError."""
    found: dict[str, str | None] = {}
    for name, value in body.items():
        if name in HOST_FACTS:
            raise not_updatable(name, "a fact of the host, and no extra property")
        if len(name) > _PROPERTY_NAME_MAX:
            raise BlazarError(400, f"Extra capability key too long: {name[:_PROPERTY_NAME_MAX]}...")
        if not name.isprintable() or not name or " " in name:
            raise malformed(repr(name), "a name without blanks")
        if value is not None and (not isinstance(value, str) or "\x00" in value or not value):
            raise malformed(name, "text that is not empty")
        found[name] = value
    return found


def read_private(body: Body) -> bool:
    """Whether a property becomes private. BlazarError."""
    _known(body, ("private",), "a property")
    if "private" not in body:
        raise missing("private")
    if not isinstance(body["private"], bool):
        raise malformed("private", "true or false")
    return body["private"]


def read_flag(name: str, text: str) -> bool:
    """A flag of a query, as clients write it: `True`. Blazar takes every text for true. BlazarError."""
    found = _truth(text)
    if found is None:
        raise malformed(name, "True or False")
    return found


def _known(body: Body, names: tuple[str, ...], of: str) -> None:
    for name in body:
        if name not in names:
            raise unknown(name, of, names)


def _name(given: object) -> str:
    if not isinstance(given, str) or not 1 <= len(given) <= _NAME_MAX or not given.isprintable():
        raise malformed("name", f"printable text of 1 to {_NAME_MAX} characters")
    return given


def _moment(given: object) -> int:
    """Nanoseconds since the epoch."""
    required = f"Required format: {DATE_FORMAT}, UTC, such as 2026-12-24 18:00"
    try:
        found = datetime.strptime(given if isinstance(given, str) else "", DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise BlazarError(400, f"{given} is an invalid date. {required}") from None
    if found.year > _YEAR_MAX:
        raise BlazarError(400, f"{given} is an invalid date. {required}; years to {_YEAR_MAX}")
    return int(found.timestamp()) * 10**9


def _new_moment(given: object, now_ns: int) -> int | None:
    """`now` is the next whole second: what is to end at once has an end to come."""
    if given is None:
        return None
    return (now_ns // 10**9 + 1) * 10**9 if given == "now" else _moment(given)


def _no_events(given: object) -> None:
    for each in _objects(given, "events"):
        kind = each.get("event_type", "")
        raise BlazarError(
            400, f"Event type {kind} is not supported: start, end and the reminder come from the dates"
        )


def _objects(given: object, name: str) -> list[dict[str, Any]]:
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise malformed(name, "a list of objects")
    return given


def _reservation(given: dict[str, Any], plugins: Sequence[ResourceType]) -> ReservationRequest:
    if "resource_type" not in given:
        raise missing("resource_type")
    kind = given["resource_type"]
    if kind not in [each.value for each in plugins]:
        raise unsupported_type(kind, tuple(each.value for each in plugins))
    if kind == ResourceType.HOST:
        _known(given, ("resource_type", *_HOST), "a physical:host reservation")
        if absent := [each for each in _HOST[:-1] if each not in given]:
            raise missing(*absent)
        least, most = _range(given["min"], given["max"])
        return ReservationRequest(
            ResourceType.HOST,
            least,
            most,
            _requirements(given["hypervisor_properties"], "hypervisor_properties"),
            _requirements(given["resource_properties"], "resource_properties"),
            _before_end(given.get("before_end", "default")),
        )
    _known(given, ("resource_type", *_INSTANCE), "a virtual:instance reservation")
    if absent := [each for each in _INSTANCE if each not in given]:
        raise missing(*absent)
    sizes = {name: _integer(given[name], name, least) for name, least in _LEAST.items()}
    return ReservationRequest(
        ResourceType.INSTANCE,
        minimum=sizes["amount"],
        maximum=sizes["amount"],
        resource_properties=_requirements(given["resource_properties"], "resource_properties"),
        amount=sizes["amount"],
        vcpus=sizes["vcpus"],
        memory_mb=sizes["memory_mb"],
        disk_gb=sizes["disk_gb"],
        affinity=_affinity(given["affinity"]),
    )


def _reservation_update(given: dict[str, Any], found: Reservation) -> ReservationUpdate:
    if given.get("resource_type", found.resource_type) != found.resource_type:
        raise not_updatable("resource_type")
    changes: dict[str, Any] = {}
    if "resource_properties" in given:
        words = _requirements(given["resource_properties"], "resource_properties")
        changes["resource_properties"] = words
    if found.resource_type is ResourceType.HOST:
        _known(given, ("id", "resource_type", *_HOST), "a physical:host reservation")
        if "min" in given or "max" in given:
            bounds = given.get("min", found.minimum), given.get("max", found.maximum)
            changes["minimum"], changes["maximum"] = _range(*bounds)
        if "hypervisor_properties" in given:
            words = _requirements(given["hypervisor_properties"], "hypervisor_properties")
            changes["hypervisor_properties"] = words
        if "before_end" in given:
            changes["before_end"] = _before_end(given["before_end"])
        return ReservationUpdate(**changes)
    _known(given, ("id", "resource_type", *_INSTANCE), "a virtual:instance reservation")
    if "affinity" in given and _affinity(given["affinity"]) != found.affinity:
        raise not_updatable("affinity", "delete the lease and create another one")
    for name, least in _LEAST.items():
        if name in given:
            changes[name] = _integer(given[name], name, least)
    if "amount" in changes:
        changes["minimum"] = changes["maximum"] = changes["amount"]
    return ReservationUpdate(**changes)


def _range(least: object, most: object) -> tuple[int, int]:
    found = _integer(least, "min"), _integer(most, "max")
    if found[0] > found[1]:
        raise BlazarError(
            400,
            "Invalid values for min/max of hosts. Max must be equal to or larger than min."
            f" They are {found[0]} and {found[1]}",
        )
    return found


def _integer(given: object, name: str, least: int = 1) -> int:
    """A number, or its text: the client sends what looks like a number as one, and else as text."""
    found: int | None = None
    if isinstance(given, int) and not isinstance(given, bool):
        found = given
    elif isinstance(given, str) and given.isascii() and given.lstrip("-").isdigit() and len(given) < 12:
        found = int(given)
    if found is None or not least <= found <= _INTEGER_MAX:
        raise malformed(name, f"must be an integer greater than or equal to {least}")
    return found


def _requirements(given: object, name: str) -> str:
    """Their text; an empty one asks for nothing. What it means is read when it is booked."""
    if isinstance(given, list):
        given = json.dumps(given)
    if not isinstance(given, str) or "\x00" in given or len(given) > _WORDS_MAX:
        raise BlazarError(400, f"Malformed requirements {str(given)[:80]}: {name}: JSON text")
    return given


def _before_end(given: object) -> str:
    if given == "snapshot":
        raise malformed("before_end", '"snapshot" is not done here; "default" or ""')
    if given not in ("", "default"):
        raise malformed("before_end", '"default" or ""')
    return str(given)


def _affinity(given: object) -> bool | None:
    if given is None or given in ("None", "none"):
        return None
    found = given if isinstance(given, bool) else _truth(given)
    if found is None:
        raise malformed("affinity", "must be a bool value or None")
    return found


def _truth(given: object) -> bool | None:
    text = given.strip().lower() if isinstance(given, str) else ""
    return True if text in _YES else False if text in _NO else None

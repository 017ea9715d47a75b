"""Requirements on hosts as Blazar writes them: `["and", [">=", "$vcpus", "4"], ["==", "$rack", "r1"]]`.

One condition or several joined by "and"; there is no "or". A condition compares a property of the host with
a value: numbers with numbers where both are, else texts. What cannot be understood, and a property that no
host has, is refused; nothing is ignored. Pure.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from homeostat.kernel.errors import BadInput
from homeostat.leases.model import ReservableHost

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ACCEPTED = 'JSON such as ["and", [">=", "$vcpus", "4"], ["==", "$rack", "r1"]]; there is no "or"'


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a property of a host."""

    name: str
    comparison: str
    value: str


def host_properties(host: ReservableHost) -> dict[str, str]:
    """What requirements may name: facts under Blazar's names, and the extra properties."""
    facts = {
        "id": str(host.number),
        "hypervisor_hostname": host.host,
        "service_name": host.host,
        "vcpus": str(host.vcpus),
        "memory_mb": str(host.memory_mb),
        "local_gb": str(host.disk_gb),
        "cpu_info": host.architecture,
    }
    return {**host.extra, **facts}


def parse_requirements(text: str, field: str) -> tuple[Requirement, ...]:
    """The conditions in a text, none in an empty one. BadInput names the field."""
    if not text.strip():
        return ()
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadInput(field, text, _ACCEPTED) from error
    match given:
        case []:
            return ()
        case ["and", *conditions] if conditions:
            return tuple(_condition(each, text, field) for each in conditions)
        case _:
            return (_condition(given, text, field),)


def _condition(given: object, text: str, field: str) -> Requirement:
    match given:
        case [str(comparison), str(name), str() | int() | float() as value] if (
            comparison in _OPERATORS and name.startswith("$") and len(name) > 1
        ):
            return Requirement(name[1:], comparison, str(value))
    raise BadInput(field, text, _ACCEPTED)


def check_names(requirements: Collection[Requirement], hosts: Collection[ReservableHost], field: str) -> None:
    """BadInput for a property that none of the hosts has: it would match nothing, for ever."""
    known = {name for host in hosts for name in host_properties(host)}
    for each in requirements:
        if each.name not in known:
            raise BadInput(field, f"${each.name}", f"a property that a host has: {', '.join(sorted(known))}")


def matches(requirements: Collection[Requirement], host: ReservableHost) -> bool:
    """Whether this host has all of it. One without the property does not."""
    properties = host_properties(host)
    return all(
        each.name in properties and _holds(properties[each.name], each.comparison, each.value)
        for each in requirements
    )


def _holds(found: str, comparison: str, wanted: str) -> bool:
    try:
        return _OPERATORS[comparison](float(found), float(wanted))
    except ValueError:
        return _OPERATORS[comparison](found, wanted)

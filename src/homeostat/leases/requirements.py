"""The requirements of a reservation on its hosts: `["and", [">=", "$vcpus", "4"], ["=", "$rack", "r1"]]`.

Blazar's language for `hypervisor_properties` and `resource_properties`, as JSON text: one condition, or
several that must all hold. It knows no lease and no store: a host is a mapping of property names to values.
Invariants: nothing of a text is ignored (Blazar drops all but the first condition of a nested "and"); a
property that a host has not makes the condition false, whatever the operator, as in Blazar. Two values that
are both numbers are ordered as numbers: Blazar orders resource properties as text, where 9 is more than 10.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from homeostat.kernel.errors import BadInput

HostFacts = Mapping[str, int | str]
"""The properties of a host by name: those of the hypervisor, and the ones that an administrator has given."""

NUMBERS = frozenset({"vcpus", "memory_mb", "local_gb"})
"""Facts of every host that are whole numbers, under Blazar's names."""
TEXTS = frozenset(
    {"id", "hypervisor_hostname", "hypervisor_type", "service_name", "cpu_info", "architecture"}
)
"""Facts of every host that are text; `architecture`, such as x86_64, is ours."""
HYPERVISOR_PROPERTIES = NUMBERS | TEXTS

CHARACTERS_MAX = 16_384
CONDITIONS_MAX = 100
_NAMES_SHOWN = 20
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
_FORM = 'either ["OPERATOR", "$PROPERTY", "VALUE"] or ["and", CONDITION, ...], as JSON'


class Operator(StrEnum):
    """How a property is compared with a value. `in`: the value is a list with commas."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    AT_LEAST = ">="
    AT_MOST = "<="
    MORE = ">"
    LESS = "<"
    IN = "in"


class MalformedRequirements(BadInput):
    """Requirements that cannot be read, or that ask for a property which no host has."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. `name` is without its dollar sign."""

    name: str
    operator: Operator
    value: str

    def holds(self, facts: HostFacts) -> bool:
        """Whether a host with these properties meets it; one without the property does not."""
        found = facts.get(self.name)
        if found is None:
            return False
        match self.operator:
            case Operator.EQUAL:
                return _same(found, self.value)
            case Operator.NOT_EQUAL:
                return not _same(found, self.value)
            case Operator.IN:
                listed = self.value.split(",")
                return any(_same(found, each) or _same(found, each.strip()) for each in listed)
            case _:
                return _ordered(self.operator, str(found), self.value)


@dataclass(frozen=True, slots=True)
class Requirements:
    """Conditions that must all hold; none: every host does. `text` is what was given, kept as it is."""

    text: str = ""
    conditions: tuple[Condition, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(each.name for each in self.conditions)

    def admit(self, facts: HostFacts) -> bool:
        """Whether a host with these properties will do."""
        return all(each.holds(facts) for each in self.conditions)

    def unmet(self, facts: HostFacts) -> tuple[Condition, ...]:
        """The conditions that a host with these properties does not meet."""
        return tuple(each for each in self.conditions if not each.holds(facts))


@lru_cache(maxsize=1024)
def parse_requirements(text: str, field: str) -> Requirements:
    """Requirements from their JSON text; empty text and `[]` ask for nothing.

    MalformedRequirements names `field`, what was given and what would do. A property that no host has is
    accepted: see `refuse_unknown`.
    """
    if not text.strip():
        return Requirements(text)
    if len(text) > CHARACTERS_MAX:
        raise MalformedRequirements(field, text, f"at most {CHARACTERS_MAX} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedRequirements(field, text, _FORM) from None
    if found == []:
        return Requirements(text)
    conditions = tuple(_conditions(found, text, field))
    if len(conditions) > CONDITIONS_MAX:
        raise MalformedRequirements(field, text, f"at most {CONDITIONS_MAX} conditions")
    return Requirements(text, conditions)


def refuse_unknown(
    requirements: Requirements, properties: Collection[str], field: str, private: Collection[str] = ()
) -> None:
    """MalformedRequirements when they ask for what is no property of a hypervisor nor among `properties`.

    It names those that there are, but for the `private` ones: whoever asks may not see them listed.
    """
    for name in sorted(requirements.names - HYPERVISOR_PROPERTIES):
        if name not in properties:
            known = sorted(HYPERVISOR_PROPERTIES | (set(properties) - set(private)))
            shown = ", ".join(known[:_NAMES_SHOWN]) + (", ..." if len(known) > _NAMES_SHOWN else "")
            raise MalformedRequirements(
                field, requirements.text, f"no host has a property {name!r}; known are {shown}"
            )


def _conditions(found: object, text: str, field: str) -> Iterator[Condition]:
    """Every condition, in the order of the text. Without recursion: the depth is the sender's choice."""
    waiting = [found]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list) and each and each[0] == "and" and len(each) > 1:
            waiting.extend(reversed(each[1:]))
        else:
            yield _condition(each, text, field)


def _condition(found: object, text: str, field: str) -> Condition:
    if isinstance(found, list) and found and isinstance(found[0], str) and found[0].lower() in ("or", "not"):
        raise MalformedRequirements(field, text, f'"{found[0]}" is not supported: only "and" is')
    match found:
        case [str(word), str(name), str(value)] if word != "and":
            operator = _operator(word, text, field)
        case [_, _, int() | float()]:
            raise MalformedRequirements(field, text, f'the value is text, such as "{found[2]}"')
        case _:
            raise MalformedRequirements(field, text, _FORM)
    if len(name) < 2 or not name.startswith("$"):
        raise MalformedRequirements(
            field, text, f"a property begins with $, such as $vcpus; this is {name!r}"
        )
    if not value:
        raise MalformedRequirements(field, text, f"a value for {name}")
    name = name[1:]
    values = value.split(",") if operator is Operator.IN else [value]
    if name in NUMBERS and not all(_WHOLE.fullmatch(each.strip()) for each in values):
        raise MalformedRequirements(field, text, f"${name} is a whole number; {value!r} is none")
    return Condition(name, operator, value)


def _operator(word: str, text: str, field: str) -> Operator:
    try:
        return Operator("==" if word == "=" else word)
    except ValueError:
        known = ", ".join(["=", *Operator])
        raise MalformedRequirements(field, text, f"{word!r} is no operator; known are {known}") from None


def _same(found: int | str, value: str) -> bool:
    """Text is the same only letter by letter: versions 2.1 and 2.10 are two."""
    if isinstance(found, int):
        return _WHOLE.fullmatch(value.strip()) is not None and found == int(value)
    return found == value


def _ordered(operator: Operator, found: str, value: str) -> bool:
    numbers = _number(found), _number(value)
    if numbers[0] is not None and numbers[1] is not None:
        compared = (numbers[0] > numbers[1]) - (numbers[0] < numbers[1])
    elif numbers[0] is None and numbers[1] is None:
        compared = (found > value) - (found < value)
    else:
        return False  # a number and a word have no order
    match operator:
        case Operator.AT_LEAST:
            return compared >= 0
        case Operator.AT_MOST:
            return compared <= 0
        case Operator.MORE:
            return compared > 0
        case _:
            return compared < 0


def _number(text: str) -> Decimal | None:
    return Decimal(text.strip()) if _NUMBER.fullmatch(text.strip()) else None

"""What an agent advertises about itself, and where a configuration falls below it.

Meta-data is a hint by the agent's author, so what it says makes warnings, never errors. The document is
bounded and declares no entities of its own; anything else is BadInput.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from homeostat.kernel.errors import BadInput
from homeostat.resources.settings import ResourceSettings

BYTES_MAX = 256 * 1024
"""The longest of the agents Debian ships is below 40 KiB."""

_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
_UNITS_S = {
    "": 1.0,
    "us": 1e-6,
    "usec": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
}


@dataclass(frozen=True, slots=True)
class AdvertisedAction:
    """One action; what the agent does not say is None. Some actions are listed once a depth or role."""

    name: str
    timeout_s: float | None
    interval_s: float | None


@dataclass(frozen=True, slots=True)
class AdvertisedParameter:
    """One parameter."""

    name: str
    required: bool
    type: str
    default: str | None


@dataclass(frozen=True, slots=True)
class MetaData:
    """What `meta-data` printed."""

    name: str
    version: str
    parameters: tuple[AdvertisedParameter, ...]
    actions: tuple[AdvertisedAction, ...]


def seconds(text: str) -> float:
    """A duration as agents write it: `20`, `20s`, `20000ms`, `1min`, `2h`; BadInput otherwise."""
    match = _DURATION.fullmatch(text)
    unit = _UNITS_S.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise BadInput("duration", text, "a number with us, ms, s, min or h, as in 20s")
    return float(match[1]) * unit


def parse(document: bytes) -> MetaData:
    """The meta-data in `document`; BadInput says what is wrong with it, and nothing else is ever raised."""
    if len(document) > BYTES_MAX:
        raise BadInput("meta-data", f"{len(document)} bytes", f"at most {BYTES_MAX} are read")
    if b"<!ENTITY" in document:
        raise BadInput("meta-data", "<!ENTITY", "a document without entities of its own")
    try:
        root = ElementTree.fromstring(document.strip())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadInput("meta-data", document[:40], f"must be XML: {error}") from error
    if root.tag != "resource-agent":
        raise BadInput("meta-data", root.tag, "the root element must be resource-agent")
    return MetaData(
        name=root.get("name", ""),
        version=(root.findtext("version") or root.get("version") or "").strip(),
        parameters=tuple(_parameters(root)),
        actions=tuple(_actions(root)),
    )


def advice(resource: ResourceSettings, advertised: MetaData) -> list[str]:
    """One line for each timeout below the advertised one and each required parameter that is missing."""
    lines = []
    configured = {
        "start": resource.operations.start.timeout_s,
        "stop": resource.operations.stop.timeout_s,
        "monitor": resource.operations.monitor.timeout_s,
    }
    for verb, timeout_s in configured.items():
        wanted = [a.timeout_s for a in advertised.actions if a.name == verb and a.timeout_s is not None]
        if wanted and timeout_s < min(wanted):
            lines.append(
                f"resources.{resource.id}.operations.{verb}.timeout_s: {timeout_s:g} is less than the "
                f"{min(wanted):g} s that {resource.agent} advises; raise it to at least that"
            )
    lines += [
        f"resources.{resource.id}.parameters.{parameter.name}: missing, and {resource.agent} requires it"
        for parameter in advertised.parameters
        if parameter.required and parameter.name not in resource.parameters
    ]
    return lines


def _parameters(root: ElementTree.Element) -> Iterator[AdvertisedParameter]:
    for element in root.iterfind("parameters/parameter"):
        content = element.find("content")
        yield AdvertisedParameter(
            name=element.get("name", ""),
            required=element.get("required", "0").strip().lower() in ("1", "true", "yes"),
            type="string" if content is None else content.get("type", "string"),
            default=None if content is None else content.get("default"),
        )


def _actions(root: ElementTree.Element) -> Iterator[AdvertisedAction]:
    for element in root.iterfind("actions/action"):
        name = element.get("name", "")
        yield AdvertisedAction(name, _duration(element, "timeout"), _duration(element, "interval"))


def _duration(element: ElementTree.Element, attribute: str) -> float | None:
    text = element.get(attribute)
    if text is None:
        return None
    try:
        return seconds(text)
    except BadInput as error:
        raise BadInput(f"meta-data.{element.get('name', '')}.{attribute}", text, error.accepted) from error
